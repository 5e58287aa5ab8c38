"""Which device a run occupies, asked without any training library."""

from __future__ import annotations

import os
import platform
import sys


def device_name() -> str:
    """``cuda:0`` with an NVIDIA GPU, ``metal`` on Apple silicon, else ``cpu``. One run at a time uses it."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") != "" and _nvidia_gpus():
        return "cuda:0"
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return "metal"
    return "cpu"


def _nvidia_gpus() -> int:
    try:
        import pynvml
    except ImportError:
        return 0
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, or none that answers
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    finally:
        pynvml.nvmlShutdown()


def physical_cores() -> int:
    """Cores this process may use, counted without hyper-threads where that is known."""
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(usable, psutil.cpu_count(logical=False) or usable))
