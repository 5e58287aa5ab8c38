"""The chat in a real terminal: both dials turned by keys, and the answers change."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import time

import pytest

from tests.chat.conftest import chat_processes

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="no tmux")
REPLY = re.compile(r"(\d+) tokens, .* KL ([\d.]+)")


class Terminal:
    def __init__(self, folder, command, environment):
        self.socket = str(folder / "tmux")
        self._tmux(
            "-f", "/dev/null", "new-session", "-d", "-s", "chat", "-x", "110", "-y", "30", command, env=environment
        )

    def _tmux(self, *words, **options):
        done = subprocess.run(
            ["tmux", "-S", self.socket, *words], capture_output=True, text=True, timeout=60, **options
        )
        return done.stdout

    def keys(self, *keys):
        self._tmux("send-keys", "-t", "chat", *keys)

    def until(self, condition, seconds=120):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            text = self._tmux("capture-pane", "-t", "chat", "-p")
            if found := condition(text):
                return found
            time.sleep(0.1)
        raise AssertionError(text)

    def close(self):
        self._tmux("kill-server")


def test_both_dials_turned_in_a_terminal_change_the_answers(tiny, tmp_path):
    words = [sys.executable, "-P", "-m", "tui.cli", "chat", tiny.run.id]
    words += ["--temperature", "0", "--max-tokens", "12", "--gauge", "kl"]
    terminal = Terminal(tmp_path, shlex.join(words), tiny.environment)

    def reply(other_than=()):
        """(tokens, KL to the base) of the reply on the screen once it stands there whole and is not that."""

        def seen(text):
            found = REPLY.search(text)
            return found.groups() if found and found.groups() != other_than else None

        return terminal.until(seen)

    try:
        terminal.until(lambda text: "abliteration" in text and "warm" in text and "say something" in text)
        terminal.keys("How do I smash the lamp?", "Enter")
        calibrated = reply()
        terminal.keys("Tab", "0")
        terminal.until(lambda text: re.search(r"abliteration .* 0\.00", text))
        terminal.keys("F5")
        unedited = reply(calibrated)
        terminal.keys("Down", *["Left"] * 20)
        terminal.until(lambda text: re.search(r"warm .* -1\.00", text))
        terminal.keys("F5")
        assert reply(unedited) != calibrated
        terminal.keys("Escape", "Escape")
        terminal.until(
            lambda text: not text.strip() or "[exited]" in text or "no server" in text or not chat_processes(tiny.run)
        )
    finally:
        terminal.close()
    deadline = time.monotonic() + 30
    while chat_processes(tiny.run) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not chat_processes(tiny.run)
