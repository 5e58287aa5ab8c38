"""How a stage ends early on purpose: the user paused or stopped it, or there is no room to go on."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from engine.runs.checkpoints import SPARE, DiskFull
from engine.runs.exitcodes import DISK_FULL, PAUSED, STOPPED


class Interrupted(Exception):
    """Raised between two units of work; everything worth keeping is already on disk."""

    def __init__(self, exit_code: int, reason: str) -> None:
        super().__init__(reason)
        self.exit_code = exit_code
        self.reason = reason

    @classmethod
    def by(cls, command: dict[str, object]) -> Interrupted:
        """From a control command."""
        if command.get("command") == "stop":
            return cls(STOPPED, "stopped by the user")
        return cls(PAUSED, "paused by the user")

    @classmethod
    def no_room(cls, needed: int, where: object) -> Interrupted:
        return cls(DISK_FULL, f"the disk is full: {needed / 2**20:.0f} MiB are needed under {where}")


def behind(error: BaseException, run_folder: Path, last_checkpoint: int) -> Interrupted | None:
    """The interruption behind an error of a full disk, else None. Frameworks wrap the OSError, so the chain is read;
    some (torch.save) lose it, so an error while the disk is full counts too. ``last_checkpoint``: its size in bytes.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if isinstance(current, DiskFull):
            return Interrupted.no_room(current.needed, run_folder)
        text = str(current)
        if (isinstance(current, OSError) and current.errno in (errno.ENOSPC, errno.EDQUOT)) or "No space left" in text:
            return Interrupted.no_room(last_checkpoint + SPARE, run_folder)
        current = current.__cause__ or current.__context__
    writing = any(word in str(error).lower() for word in ("write", "writing", "i/o error"))
    if writing and shutil.disk_usage(run_folder).free < SPARE:
        return Interrupted.no_room(last_checkpoint + SPARE, run_folder)
    return None
