"""How far the data sets of the hub are that a command waits for: on stderr, rewritten on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import time

MIB = 2**20


class Fetching:
    FIRST, AGAIN, PLAIN = 0.5, 0.2, 10.0

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()
        self._shown = False
        self._terminal = sys.stderr.isatty()

    def told(self, done: int, size: int) -> None:
        """``done`` of ``size`` bytes are here."""
        now = time.monotonic()
        every = self.AGAIN if self._terminal else self.PLAIN
        if now - self._started < self.FIRST or now - self._last < every:
            return
        self._last, self._shown = now, True
        words = fetching_words(done, size)
        print(
            f"\r{words:<60}" if self._terminal else words,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )

    def close(self) -> None:
        if self._shown and self._terminal:
            print(f"\r{'':<60}\r", end="", file=sys.stderr, flush=True)


def fetching_words(done: int, size: int) -> str:
    return f"fetching the data set: {done / max(1, size):.0%} of {size / MIB:.1f} MiB"
