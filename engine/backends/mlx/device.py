"""Where MLX computes, in which precision, and how much memory it may take."""

from __future__ import annotations

import shutil

import mlx.core as mx

CACHE_SHARE = 0.125
"""Share of the limit that freed buffers may keep for reuse; without a bound the cache grows with every new length."""

_limit: int | None = None


def recommended() -> int | None:
    """Bytes that the machine recommends for its GPU, about three quarters of a Mac's memory; None where there is none
    to ask (on a CPU a stage that takes too much is the operating system's business)."""
    return int(mx.device_info()["max_recommended_working_set_size"]) if mx.metal.is_available() else None


def prepare() -> None:
    """Set the memory limits of this process, and do without compiled kernels where nothing can compile them.

    Beyond the limit MLX waits for running work and frees its cache before it takes more; wired memory cannot be swapped
    out, which also spares Macs the panics of a system whose GPU holds more than that (mlx #3186).
    """
    global _limit
    _limit = recommended()
    if _limit is not None:
        mx.set_memory_limit(_limit)
        mx.set_cache_limit(int(_limit * CACHE_SHARE))
        if mx.metal.is_available():
            mx.set_wired_limit(_limit)
    elif not any(shutil.which(name) for name in ("g++", "c++", "clang++")):
        mx.disable_compile()  # on CPUs MLX calls a C++ compiler at run time


def check_memory() -> None:
    """Raise MemoryError once more was taken than the machine recommends: from there on it would swap, not train. Called
    after every step and every batch of generating or scoring."""
    peak = mx.get_peak_memory()
    if _limit is not None and peak > _limit:
        raise MemoryError(
            f"out of memory: {peak / 2**20:.0f} MiB were needed, {_limit / 2**20:.0f} MiB is what this machine "
            "recommends for its GPU; the stage stops here instead of swapping"
        )


def peak_memory_mib() -> float:
    """Most memory that MLX held at once so far, in MiB."""
    return mx.get_peak_memory() / 2**20


def pick_dtype(wanted: str) -> mx.Dtype:
    """``auto`` is bf16 on Apple's GPU and fp32 on CPUs."""
    if wanted == "bf16" or (wanted == "auto" and mx.metal.is_available()):
        return mx.bfloat16
    return mx.float32
