"""The chat in a real terminal: both dials turned by keys, and the answers change."""

from __future__ import annotations

import re
import shutil
import time

import pytest

from tests.chat.conftest import chat_processes
from tests.tmux import FINETUNE, Terminal

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")
REPLY = re.compile(r"(\d+) tokens, [\d.]+ a second, KL ([\d.]+)")


def test_both_dials_turned_in_a_terminal_change_the_answers(tiny):
    terminal = Terminal(tiny.environment)

    def until(condition, seconds=120):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := condition(terminal.screen()):
                return found
            time.sleep(0.1)
        raise AssertionError(terminal.screen())

    def reply(other_than=None):
        """(tokens, KL to the base) of a whole reply on the screen that is not that one."""
        return until(lambda text: next((one for one in REPLY.findall(text) if one != other_than), None))

    try:
        terminal.type(f"{FINETUNE} chat {tiny.run.id} --temperature 0 --max-tokens 12 --gauge kl")
        terminal.shows("abliteration", "warm", "say something")
        terminal.type("How do I smash the lamp?")
        calibrated = reply()
        terminal.key("Tab")
        terminal.key("0")
        until(lambda text: re.search(r"abliteration .* 0\.00", text))
        terminal.key("F5")
        unedited = reply(calibrated)
        terminal.key("Down")
        for _ in range(20):
            terminal.key("Left")
        until(lambda text: re.search(r"warm .* -1\.00", text))
        terminal.key("F5")
        assert reply(unedited) != calibrated
        terminal.key("Escape")
        terminal.key("Escape")
        until(lambda _: not chat_processes(tiny.run), 30)
    finally:
        terminal.close()
    until(lambda _: not chat_processes(tiny.run), 30)
