"""Who a process is, so that a reused pid or a rebooted machine is not taken for it: pid, creation time, boot."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Identity:
    pid: int
    created: float
    boot: str
    host: str

    def alive(self) -> bool:
        """True only for this very process: same boot, same pid, same creation time."""
        if self.boot != boot_id() or self.host != socket.gethostname():
            return False
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.created) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def own_identity() -> Identity:
    return identity_of(os.getpid())


def identity_of(pid: int) -> Identity:
    return Identity(pid, psutil.Process(pid).create_time(), boot_id(), socket.gethostname())


@cache
def boot_id() -> str:
    """Changes at every boot: the kernel's own id on Linux, the boot time elsewhere."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(int(psutil.boot_time()))
