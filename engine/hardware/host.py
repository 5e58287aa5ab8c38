"""What every machine has: processor, memory, disk, power, operating system."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from engine.hardware.device import physical_cores
from engine.hardware.machine import Cpu, Disk, Power, Ram

NO_LIMIT = 2**60
"""Control groups write "max" or a number near 2^63 where there is no limit."""


def probe_cpu() -> Cpu:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Cpu(cpu_name(), physical_cores(), usable)


def cpu_name(info: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name. ARM machines give none in ``/proc/cpuinfo``: there it is the architecture."""
    try:
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return " ".join(value.split())
    except OSError:
        pass
    return platform.processor() or platform.machine()


def probe_ram(groups: Path = Path("/sys/fs/cgroup"), mine: Path = Path("/proc/self/cgroup")) -> Ram:
    """Available, not free: caches give way. Inside a container the smaller of the machine's and the container's."""
    import psutil

    memory = psutil.virtual_memory()
    total, available, by = memory.total, memory.available, None
    for limit, used in _group_limits(groups, mine):
        if limit - used < available:
            total, available, by = min(total, limit), max(0, limit - used), "the container's limit"
    return Ram(total, available, by)


def _group_limits(groups: Path, mine: Path) -> list[tuple[int, int]]:
    """``(limit, used)`` in bytes for this process's control group and those around it; caches count as not used."""
    found = []
    try:
        place = mine.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    own = next((line.split(":", 2)[2].lstrip("/") for line in place if line.startswith("0::")), None)
    if own is not None:  # version 2, one tree
        folder = groups / own
        for group in [folder, *folder.parents]:
            if not group.is_relative_to(groups):
                break
            limit, used = _size(group / "memory.max"), _size(group / "memory.current")
            if limit is not None and used is not None:
                found.append((limit, max(0, used - _file_cache(group / "memory.stat"))))
    else:
        limit, used = _size(groups / "memory/memory.limit_in_bytes"), _size(groups / "memory/memory.usage_in_bytes")
        if limit is not None and used is not None:
            found.append((limit, max(0, used - _file_cache(groups / "memory/memory.stat"))))
    return [(limit, used) for limit, used in found if limit < NO_LIMIT]


def _file_cache(path: Path) -> int:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    names = ("inactive_file", "total_inactive_file")
    return max((int(value) for name, _, value in (line.partition(" ") for line in lines) if name in names), default=0)


def _size(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, or "max"
        return None


def probe_disk(path: Path) -> Disk:
    """The disk that ``path`` is or will be on. Nothing is created: the nearest folder that exists is asked."""
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    usage = shutil.disk_usage(there)
    return Disk(str(path), usage.total, usage.free, os.access(there, os.W_OK | os.X_OK))


def models_cache() -> Path:
    """Where the hub's downloads go, by the same environment variables that huggingface_hub reads."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if named:
        return Path(named).expanduser()
    base = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface")
    return Path(base).expanduser() / "hub"


def probe_power() -> Power:
    import psutil

    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    return Power(None) if battery is None else Power(battery.power_plugged, battery.percent)


def distribution(path: Path = Path("/etc/os-release")) -> str | None:
    """``ubuntu``, ``fedora``, …: the ID of os-release, for the commands that the doctor names."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return fields.get("ID", "").strip("\"'") or None


def nvidia_on_the_bus(sys_folder: Path = Path("/sys")) -> bool:
    """Whether an NVIDIA display or compute device is plugged in, driver or not."""
    for device in sys_folder.glob("bus/pci/devices/*"):
        try:
            if (device / "vendor").read_text().strip() == "0x10de" and (device / "class").read_text().startswith(
                "0x03"
            ):
                return True
        except OSError:
            continue
    return False
