"""A clock that stands still while other programs have the cores: the processor's seconds that a run's stages took.

With one thread, and nothing waited for, a quiet machine's wall shows the same. Sampled from outside while a run goes, so that
the times of its events can be read off it afterwards.
"""

from __future__ import annotations

import json
import threading
import time
from bisect import bisect_right
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

import psutil

EVERY = 0.1
"""Seconds between two samples; the events in between are interpolated."""
STAGE = "engine.stage"


class CpuClock:
    """Wall's time -> seconds that stage processes had computed by then. ``samples``: (wall, process, its seconds)."""

    def __init__(self, samples: Iterable[tuple[float, int, float]]) -> None:
        self._wall: list[float] = []
        self._seconds: list[float] = []
        ended, last, current = 0.0, 0.0, -1
        for wall, process, seconds in samples:
            if process != current:  # the next stage, or attempt, begins at nothing
                ended, last, current = ended + last, 0.0, process
            last = max(last, seconds)
            self._wall.append(wall)
            self._seconds.append(ended + last)

    def __call__(self, wall: float) -> float:
        """Before the first sample and after the last one the clock stands."""
        after = bisect_right(self._wall, wall)
        if not after:
            return 0.0
        if after == len(self._wall):
            return self._seconds[-1]
        one, other = self._wall[after - 1], self._wall[after]
        share = (wall - one) / (other - one) if other > one else 1.0
        return self._seconds[after - 1] + share * (self._seconds[after] - self._seconds[after - 1])

    @classmethod
    def read(cls, path: Path) -> CpuClock:
        return cls(json.loads(line) for line in path.read_text().splitlines())


class Sampling:
    """While open, writes samples of the stages that work below ``home``, one JSON line each."""

    def __init__(self, home: Path, path: Path) -> None:
        self._home, self._path = str(home), path
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Sampling:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        process: psutil.Process | None = None
        with open(self._path, "w", encoding="utf-8", buffering=1) as out:
            while not self._over.wait(EVERY):
                try:
                    process = process or self._stage()
                    if process is not None:
                        times = process.cpu_times()
                        seconds = times.user + times.system + times.children_user + times.children_system
                        out.write(json.dumps([time.time(), process.pid, seconds]) + "\n")
                except psutil.Error:
                    process = None

    def _stage(self) -> psutil.Process | None:
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if STAGE in words and any(word.startswith(self._home) for word in words):
                return process
        return None
