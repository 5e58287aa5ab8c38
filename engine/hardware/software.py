"""Which training libraries work here, asked of a helper process (engine/backends/survey.py)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from typing import Any

from engine.hardware.machine import Package

TIMEOUT = 120.0
"""Seconds; a cold import of torch from a slow disk has been seen to take half a minute."""


class Survey:
    """The helper process. Started on creation, so that the rest of the probe runs beside it."""

    def __init__(self, command: list[str] | None = None) -> None:
        self._process = subprocess.Popen(
            command or [sys.executable, "-P", "-m", "engine.backends.survey"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def result(self, timeout: float = TIMEOUT) -> dict[str, Package]:
        """Library -> what was found. A library whose import killed or hung the process is named with that."""
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(timeout, end)
        timer.start()
        try:
            assert self._process.stdout is not None
            lines = list(self._process.stdout)
            code = self._process.wait()
        finally:
            timer.cancel()
            self._process.kill()
        if late.is_set():
            ending = f"importing it took more than {timeout:.0f} s"
        elif code < 0:
            ending = f"importing it ends the process ({signal.Signals(-code).name})"
        else:
            ending = f"importing it ends the process with code {code}"
        return read_survey(lines, ending)


def read_survey(lines: Iterable[str], ending: str) -> dict[str, Package]:
    """The packages of a survey's output; one that was begun and not told of gets ``ending`` as its error."""
    found: dict[str, Package] = {}
    begun: str | None = None
    for line in lines:
        try:
            item: Any = json.loads(line)
        except json.JSONDecodeError:  # a library that prints while it is imported
            continue
        if not isinstance(item, dict):
            continue
        if "begin" in item:
            begun = item["begin"]
        elif "name" in item:
            found[item["name"]] = Package(item.get("version"), item.get("error"), item.get("facts") or {})
            begun = None
    if begun is not None:
        found[begun] = Package(version="?", error=ending)
    return found
