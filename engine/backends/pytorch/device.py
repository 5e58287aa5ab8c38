"""Where PyTorch computes and in which precision."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
from collections.abc import Iterator

import torch


def pick_device() -> torch.device:
    """The local rank's CUDA device, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
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


def peak_memory_mib() -> float:
    """Peak memory so far in MiB: what the CUDA allocator reserved, else the process's resident set."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes on macOS, KiB on Linux


def use_threads(threads: int | None) -> None:
    """Pin the number of CPU threads: sums are split by it, so a resume with another number would differ in bits."""
    if threads:
        torch.set_num_threads(threads)
