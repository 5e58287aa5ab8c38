"""How a stage ends early on purpose: the user paused or stopped it, or there is no room to go on."""

from __future__ import annotations

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
        return cls(
            DISK_FULL, f"the disk is full: {needed / 2**20:.0f} MiB are needed under {where} to save a checkpoint"
        )
