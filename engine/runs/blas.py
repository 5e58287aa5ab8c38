"""A fast BLAS for MLX on Linux, whose wheel multiplies matrices with a reference implementation (13 times slower)."""

from __future__ import annotations

import glob
import sys
from pathlib import Path

PATTERNS = (
    "/usr/lib/*/openblas-pthread/libopenblas.so.0",  # Debian, Ubuntu: libopenblas0-pthread
    "/usr/lib64/libopenblasp.so.0",  # Fedora: openblas-threads
    "/usr/lib64/libopenblas.so.0",
    "/usr/lib/libopenblas.so.0",  # Arch
)


def openblas(root: str = "/") -> str | None:
    """Path of the threaded OpenBLAS that is installed, to be preloaded into a stage that runs on MLX; None without one,
    and on Macs, where MLX has Accelerate. The same machine gives the same answer: sums depend on the library."""
    if sys.platform != "linux":
        return None
    for pattern in PATTERNS:
        found = sorted(glob.glob(str(Path(root) / pattern.lstrip("/"))))
        if found:
            return found[0]
    return None
