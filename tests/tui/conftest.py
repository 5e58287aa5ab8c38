"""Nothing moves by itself: no animation, times in UTC, no look at this machine."""

from __future__ import annotations

import time

import pytest

from tui.view.conditions import Surroundings


@pytest.fixture(autouse=True)
def still(monkeypatch):
    monkeypatch.setenv("TEXTUAL_ANIMATIONS", "none")
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.delenv("NO_COLOR", raising=False)
    time.tzset()
    monkeypatch.setattr("tui.words.unicode_terminal", lambda: True)
    monkeypatch.setattr("tui.app.unicode_terminal", lambda: True)
    monkeypatch.setattr("engine.hardware.card.machine_line", lambda: "a machine of the tests")
    monkeypatch.setattr("tui.follow.look_around", Surroundings)
    from tests.tui.wizard_driving import MACHINE

    monkeypatch.setattr("tui.machine_book.machine", lambda: MACHINE)
