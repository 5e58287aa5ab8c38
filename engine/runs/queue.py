"""One device, one run: the others wait in line, first come first served."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from engine.runs.files import write_atomically
from engine.runs.identity import Identity, own_identity
from engine.runs.lock import Lock, LockHeld, held


class DeviceQueue:
    """A ticket per waiting supervisor under ``<home>/devices/<device>/``. Tickets of dead processes are passed over."""

    def __init__(self, home: Path, device: str) -> None:
        self.folder = home / "devices" / device.replace(":", "-")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.lock = Lock(self.folder / "lock")
        self._ticket: Path | None = None

    def enter(self, run: str) -> None:
        """Take a ticket."""
        self._ticket = self.folder / f"{time.time_ns():020d}-{os.getpid()}.ticket"
        write_atomically(self._ticket, json.dumps({"run": run, **own_identity().to_json()}))

    def try_take(self) -> bool:
        """Take the device if it is free and nobody alive is before us in line."""
        if any(ticket != self._ticket and ticket.name < self._name() for ticket in self._living()):
            return False
        try:
            self.lock.acquire()
        except LockHeld:
            return False
        return True

    def taken(self) -> bool:
        """Whether a run is on the device."""
        return held(self.lock.path)

    def ahead(self) -> int:
        """How many wait before us, not counting the run on the device."""
        return sum(ticket.name < self._name() for ticket in self._living() if ticket != self._ticket)

    def leave(self) -> None:
        """Give up the ticket (once the device is taken, or when waiting is over)."""
        if self._ticket is not None:
            self._ticket.unlink(missing_ok=True)
            self._ticket = None

    def release(self) -> None:
        self.leave()
        self.lock.release()

    def _name(self) -> str:
        return self._ticket.name if self._ticket else "~"

    def _living(self) -> list[Path]:
        living = []
        for ticket in sorted(self.folder.glob("*.ticket")):
            try:
                data = json.loads(ticket.read_text())
                data.pop("run")
                if Identity(**data).alive():
                    living.append(ticket)
                else:
                    ticket.unlink(missing_ok=True)
            except (OSError, ValueError, TypeError, KeyError):
                continue
        return living
