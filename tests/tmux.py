"""A real terminal: tmux with a shell in it, typed into and read as one would."""

from __future__ import annotations

import subprocess
import sys
import time
import uuid
from pathlib import Path

FINETUNE = str(Path(sys.executable).with_name("finetune-tui"))


class Terminal:
    """A tmux session of 80×24 with a shell in it."""

    def __init__(self, environment):
        self.socket = f"finetune-{uuid.uuid4().hex[:8]}"
        self._tmux(
            "-f", "/dev/null", "new-session", "-d", "-s", "t", "-x", "80", "-y", "24", "bash --norc --noprofile",
            env={**environment, "TERM": "xterm-256color", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"},
        )  # fmt: skip

    def _tmux(self, *words, env=None):
        done = subprocess.run(["tmux", "-L", self.socket, *words], capture_output=True, text=True, env=env, timeout=30)
        return done.stdout

    def type(self, line):
        self._tmux("send-keys", "-t", "t", line, "Enter")

    def key(self, name):
        self._tmux("send-keys", "-t", "t", name)

    def screen(self):
        return self._tmux("capture-pane", "-p", "-t", "t")

    def flags(self):
        """(alternate screen, any mouse mode): both 0 in a terminal that was left clean."""
        return self._tmux("display-message", "-p", "-t", "t", "#{alternate_on} #{mouse_any_flag}").split()

    def shows(self, *texts, seconds=120.0):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            screen = self.screen()
            if all(text in screen for text in texts):
                return screen
            time.sleep(0.1)
        raise AssertionError(f"never showed {texts}:\n{self.screen()}")

    def rests(self, seconds=60.0):
        """The screen once it has been the same for a while: a view is redrawn at most four times a second."""
        deadline, last, since = time.monotonic() + seconds, self.screen(), time.monotonic()
        while time.monotonic() - since < 1.0:
            assert time.monotonic() < deadline, f"never rested:\n{last}"
            time.sleep(0.1)
            now = self.screen()
            if now != last:
                last, since = now, time.monotonic()
        return last

    def close(self):
        self._tmux("kill-server")
