"""Where PyTorch computes and in which precision."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterator

import torch

FLASH_ORDER = "FLASH_ATTENTION_DETERMINISTIC"
"""FlashAttention is not PyTorch's and does not heed its settings: transformers reads this variable at each forward
(``modeling_flash_attention_utils``), and the kernel keeps what it was told then for its backward."""


def pick_device() -> torch.device:
    """The local rank's CUDA device, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        # cuBLAS sums in one order only with a workspace of fixed size, and reads this once, at its first product.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def pick_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """``auto`` is bf16 where the GPU computes in it and fp32 elsewhere (fp16 would need loss scaling to train)."""
    if wanted == "bf16":
        return torch.bfloat16
    if wanted == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run with torch's generators seeded, then put every generator back, so that evaluating never moves training."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextlib.contextmanager
def in_fixed_order(wanted: bool = True) -> Iterator[None]:
    """Within, CUDA kernels that add up in a fixed order, so that a resumed run ends in the bits of an undisturbed one.

    Without it, attention's backward sums by atomic additions, in the order of the moment. An operation that has no such
    kernel raises RuntimeError. On other devices nothing changes: there the order is fixed anyway.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    flash = os.environ.get(FLASH_ORDER)
    fixed = wanted and torch.cuda.is_available()
    torch.use_deterministic_algorithms(fixed)
    torch.utils.deterministic.fill_uninitialized_memory = False  # it would write all fresh memory, to find bugs
    _set(FLASH_ORDER, "1" if fixed else None)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.utils.deterministic.fill_uninitialized_memory = before[1]
        _set(FLASH_ORDER, flash)


def _set(variable: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(variable, None)
    else:
        os.environ[variable] = value


def peak_memory_mib() -> float:
    """Peak memory so far in MiB: what the CUDA allocator reserved, else the process's resident set."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes on macOS, KiB on Linux
