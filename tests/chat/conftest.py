"""The small run (tests/small_run.py) in a home of this test process, driven by commands as a user would."""

from __future__ import annotations

import psutil
import pytest

from tests.kill.conftest import Real
from tests.small_run import RECIPE, copied, small_run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    real = Real(tmp_path_factory.mktemp("tiny"), RECIPE)
    real.run = copied(small_run(tmp_path_factory), real.home)
    return real


@pytest.fixture
def at_home(tiny, monkeypatch):
    """The app of the test finds the tiny run."""
    monkeypatch.setenv("FINETUNE_TUI_HOME", str(tiny.home))
    return tiny


def chat_processes(run):
    """The chat processes of a run, wherever they hang."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "engine.chat" in words and str(run.path) in words and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found
