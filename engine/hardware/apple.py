"""Apple Silicon, asked through ``sysctl`` and ``ioreg``; what Metal itself says comes from the software survey (MLX).

The probe takes the function that runs such a command, so that recorded answers stand in for it in tests.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

from engine.hardware.machine import Apple

GIB = 2**30
SMALL_SHARE, LARGE_SHARE = 2 / 3, 3 / 4
"""Share of the memory that Metal recommends to stay under: two thirds up to 36 GB, three quarters above.

Measured by others: 32 GB -> 21 to 24 GiB, 48 -> 36 to 37, 64 -> 48, 128 -> 96. Only used where MLX cannot be asked."""
SMALL_MEMORY = 36 * GIB

Run = Callable[[list[str]], str | None]
"""A command -> what it prints, or None where it fails or does not exist."""


def run_command(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def probe_apple(run: Run, recommended: int | None = None) -> Apple | None:
    """The machine as Metal may use it; None on an Intel Mac. ``recommended``: the working set that Metal told MLX."""
    if sysctl(run, "hw.optional.arm64") != "1":  # 1 under Rosetta too, where the architecture says x86_64
        return None
    memory = int(sysctl(run, "hw.memsize") or 0)
    limit = wired_limit(run)
    if recommended:  # Metal's figure already follows the wired limit
        working_set, told = recommended, "metal"
    elif limit:
        working_set, told = min(limit, memory), "wired limit"
    else:
        working_set, told = int(memory * (SMALL_SHARE if memory <= SMALL_MEMORY else LARGE_SHARE)), "estimate"
    return Apple(
        chip=sysctl(run, "machdep.cpu.brand_string") or "Apple Silicon",
        memory=memory,
        working_set=working_set,
        working_set_from=told,  # type: ignore[arg-type]
        wired_limit=limit,
        gpu_cores=_gpu_cores(run),
        translated=sysctl(run, "sysctl.proc_translated") == "1",
    )


def wired_limit(run: Run) -> int | None:
    """What the user allowed the GPU to wire; None for the default. macOS 13 had it under another name, in bytes."""
    megabytes = sysctl(run, "iogpu.wired_limit_mb")
    if megabytes is not None:
        return int(megabytes) * 2**20 or None
    size = sysctl(run, "debug.iogpu.wired_limit")
    return int(size) or None if size is not None else None


def sysctl(run: Run, name: str) -> str | None:
    return run(["/usr/sbin/sysctl", "-n", name])


def _gpu_cores(run: Run) -> int | None:
    found = re.search(r'"gpu-core-count"\s*=\s*(\d+)', run(["/usr/sbin/ioreg", "-rd1", "-c", "AGXAccelerator"]) or "")
    return int(found[1]) if found else None
