"""Locks that die with their holder: flock on a file, with the holder's identity written inside for the others."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path

from engine.runs.identity import Identity, own_identity

TRIES, PAUSE = 20, 0.01


class LockHeld(Exception):
    """Somebody else holds the lock; ``holder`` says who, or None if they did not write it yet."""

    def __init__(self, path: Path, holder: Identity | None) -> None:
        who = f"process {holder.pid} on {holder.host}" if holder else "another process"
        super().__init__(f"{path.parent.name} is held by {who}")
        self.holder = holder


class Lock:
    """The kernel releases the lock when its holder ends in whatever way, so a stale file or a reused pid locks nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock or raise LockHeld. Somebody who only looks (``held``) has it for microseconds: that is waited out."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        for attempt in range(TRIES):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if attempt + 1 < TRIES:
                    time.sleep(PAUSE)
        else:
            os.close(descriptor)
            raise LockHeld(self.path, read_holder(self.path))
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(own_identity().to_json()).encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None


def held(path: Path) -> bool:
    """Whether a living process holds the lock."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def read_holder(path: Path) -> Identity | None:
    """Who wrote itself into the lock file last; ask :func:`held` whether they still hold it."""
    try:
        return Identity(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
