"""Which attention kernel a base is loaded with, and why."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass

import torch

from recipes.errors import InputError, Problem

FLASH = "flash_attention_2"
HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Attention:
    """``implementation`` as transformers names it; None leaves the choice to it (sdpa where the model has it)."""

    implementation: str | None
    why: str


def pick_attention(
    wanted: str, device: str, dtype: torch.dtype, installed: Callable[[str], object] | None = None
) -> Attention:
    """``auto`` is FlashAttention 2 where it can be, else what transformers picks. Raises InputError where it is asked for and
    cannot be. ``device`` is a type of torch's; ``installed`` looks a package up."""
    has = installed or importlib.util.find_spec
    if wanted in ("sdpa", "eager"):
        return Attention(wanted, "as the recipe says")
    missing = None
    if device != "cuda":
        missing = "FlashAttention 2 needs a CUDA device"
    elif dtype not in HALF:
        missing = f"FlashAttention 2 needs 16-bit weights, these are {str(dtype).removeprefix('torch.')}"
    elif has("flash_attn") is None:
        missing = "FlashAttention 2 is not installed: `pip install flash-attn --no-build-isolation`"
    if missing is None:
        return Attention(FLASH, "as the recipe says" if wanted == FLASH else "it is installed")
    if wanted == FLASH:
        accepted = "`attention: auto` or `sdpa`"
        raise InputError([Problem("recipe", None, "attention", f"`{FLASH}`, but {missing}", accepted)])
    return Attention(None, missing)
