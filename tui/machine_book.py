"""What the machine has, asked once and remembered for a while: every screen holds its figures against the same."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.forecast.hardware import Hardware
    from engine.hardware.machine import Machine

FRESH = 30.0
"""Seconds for which a probe is believed; memory comes and goes."""
_lock = threading.Lock()
_machine: tuple[float, Machine] | None = None
_hardware: tuple[float, Hardware] | None = None


def machine() -> Machine:
    """The probe without the libraries. Takes from milliseconds to a second: never on the screen's thread."""
    global _machine
    from engine.hardware.probe import probe_machine

    with _lock:
        if _machine is None or time.monotonic() - _machine[0] > FRESH:
            _machine = (time.monotonic(), probe_machine(software=False))
        return _machine[1]


def hardware() -> Hardware:
    """The device that training would use, for the forecast; likewise."""
    global _hardware
    from engine.forecast.hardware import this_machine

    with _lock:
        if _hardware is None or time.monotonic() - _hardware[0] > FRESH:
            _hardware = (time.monotonic(), this_machine())
        return _hardware[1]


def forget() -> None:
    """Ask again next time."""
    global _machine, _hardware
    with _lock:
        _machine = _hardware = None
