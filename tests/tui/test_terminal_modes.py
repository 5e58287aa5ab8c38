"""What the app says to a real terminal beside its screen: its title, and the mouse's mode again when the focus comes back."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tui.recording import RUN_ID, recorded_run
from tui.settings import Settings, save_settings

MOUSE = b"\x1b[?1003h"


class Terminal:
    def __init__(self):
        self.seen = b""
        self._main, end = pty.openpty()
        environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "COLUMNS": "80", "LINES": "24"}
        command = [str(Path(sys.executable).with_name("finetune-tui")), "attach", RUN_ID]
        self.process = subprocess.Popen(
            command, stdin=end, stdout=end, stderr=end, env=environment, start_new_session=True
        )
        os.close(end)

    def type(self, keys):
        os.write(self._main, keys)

    def until(self, wanted, seconds=60.0):
        """Read on until ``wanted(all that was seen)``."""
        deadline = time.monotonic() + seconds
        while not wanted(self.seen):
            assert time.monotonic() < deadline, self.seen[-2000:]
            if select.select([self._main], [], [], 0.2)[0]:
                try:
                    self.seen += os.read(self._main, 1 << 16)
                except OSError:  # it has ended
                    assert wanted(self.seen), self.seen[-2000:]

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self._main)


@pytest.fixture
def open_terminal():
    opened = []

    def make():
        recorded_run()
        opened.append(Terminal())
        return opened[-1]

    yield make
    for terminal in opened:
        terminal.close()


def test_the_title_is_set_and_put_back_and_the_mouse_is_asked_for_again(open_terminal):
    terminal = open_terminal()
    terminal.until(lambda seen: b"tok/s" in seen)
    assert b"\x1b[22;2t" in terminal.seen and f"\x1b]2;done: {RUN_ID}\x1b\\".encode() in terminal.seen
    before = terminal.seen.count(MOUSE)
    terminal.type(b"\x1b[O\x1b[I")  # the focus goes and comes back, as when one attaches to tmux again
    terminal.until(lambda seen: seen.count(MOUSE) > before)
    terminal.type(b"\x11")
    terminal.until(lambda seen: b"\x1b[23;2t" in seen)


def test_a_mouse_that_is_not_wanted_is_never_asked_for(open_terminal):
    save_settings(Settings(mouse=False))
    terminal = open_terminal()
    terminal.until(lambda seen: b"tok/s" in seen)
    terminal.type(b"\x1b[O\x1b[I")
    terminal.type(b"\x11")
    terminal.until(lambda seen: b"\x1b[23;2t" in seen)
    assert MOUSE not in terminal.seen
