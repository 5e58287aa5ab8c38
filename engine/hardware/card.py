"""The machine in one line: processor, memory, accelerators. The full probe is another room's."""

from __future__ import annotations

import platform

import psutil

from engine.hardware.device import physical_cores


def machine_line() -> str:
    """Such as ``Linux x86_64, 8 cores, 24.1 of 31.2 GiB free, RTX 3090 23.1 of 24.0 GiB free``."""
    memory = psutil.virtual_memory()
    parts = [
        f"{platform.system()} {platform.machine()}",
        f"{physical_cores()} cores",
        f"{memory.available / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free",
        *(nvidia_lines() or ["no NVIDIA GPU: the CPU trains"]),
    ]
    return ", ".join(parts)


def nvidia_lines() -> list[str]:
    """One entry for each NVIDIA GPU that the driver reports; none without a driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        lines = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            name = pynvml.nvmlDeviceGetName(handle)
            try:
                memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
                room = f" {memory.free / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free"
            except pynvml.NVMLError:  # machines whose GPU shares the RAM report no memory of its own
                room = ", memory shared with the system"
            lines.append(f"{name}{room}")
        return lines
    finally:
        pynvml.nvmlShutdown()
