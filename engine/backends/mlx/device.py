"""Where MLX computes, in which precision, and how much memory it may take."""

from __future__ import annotations

import shutil

import mlx.core as mx

CACHE_SHARE = 0.125
"""Share of the limit that freed buffers may keep for reuse; without a bound the cache grows with every new length."""

_limit: int | None = None


def prepare() -> None:
    """Set the memory limits of this process, and do without compiled kernels where nothing can compile them."""
    global _limit
    if mx.metal.is_available():
        _limit = int(mx.device_info()["max_recommended_working_set_size"])
        mx.set_memory_limit(_limit)
        mx.set_wired_limit(_limit)
        mx.set_cache_limit(int(_limit * CACHE_SHARE))
    elif not any(shutil.which(name) for name in ("g++", "c++", "clang++")):
        mx.disable_compile()  # on CPUs MLX calls a C++ compiler at run time


def check_memory() -> None:
    """Raise MemoryError once more was taken than the machine recommends: from there on it would swap, not train."""
    peak = mx.get_peak_memory()
    if _limit is not None and peak > _limit:
        raise MemoryError(
            f"out of memory: {peak / 2**20:.0f} MiB were needed, {_limit / 2**20:.0f} MiB is what this machine "
            "recommends for its GPU"
        )


def peak_memory_mib() -> float:
    """Most memory that MLX held at once so far, in MiB."""
    return mx.get_peak_memory() / 2**20


def pick_dtype(wanted: str) -> mx.Dtype:
    """``auto`` is bf16 on Apple's GPU and fp32 on CPUs."""
    if wanted == "bf16" or (wanted == "auto" and mx.metal.is_available()):
        return mx.bfloat16
    return mx.float32
