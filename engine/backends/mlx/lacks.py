"""What a recipe may ask that MLX does not have, each with the nearest that it has."""

from __future__ import annotations

import os
from typing import Any

from recipes.errors import InputError, Problem
from recipes.mlx import ACCEPTED, IN_SEVERAL


def check_stage(stage: Any) -> None:
    """Raises InputError naming every setting that this backend cannot follow."""
    problems = []
    if getattr(stage, "optimizer", "adamw") != "adamw":
        found = f"`{stage.optimizer}`: bitsandbytes, which MLX does not have"
        accepted = "`adamw` (with an adapter its moments are small anyhow), or `backend: pytorch`"
        problems.append(Problem("recipe", None, "optimizer", found, accepted))
    if getattr(stage, "padding_free", False):
        found = "`true`, but MLX pads the rows of a micro-batch"
        accepted = "`false` (the losses are the same), or `backend: pytorch`"
        problems.append(Problem("recipe", None, "padding_free", found, accepted))
    if problems:
        raise InputError(problems)


def check_kernels(wanted: str, fixed_order: bool) -> None:
    """Raises InputError for a kernel by name, and for another order of sums: they are PyTorch's."""
    if not fixed_order:
        found = "`false`, but MLX has no other order of sums"
        raise InputError([Problem("recipe", None, "fixed_order", found, "`true`, or `backend: pytorch`")])
    if wanted != "auto":
        found = f"`{wanted}`: a kernel of PyTorch's; MLX has one fused attention of its own"
        raise InputError([Problem("recipe", None, "attention", found, "`auto`, or `backend: pytorch`")])


def check_processes(method: str) -> None:
    """Raises InputError when a stage was started as one of several whose method trains in one process here."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1 and method not in IN_SEVERAL:
        raise InputError([Problem("recipe", None, "processes", f"`{count}` with MLX for {method}", ACCEPTED)])


def check_training(full: bool, dropout: float, checkpointing: bool, quantized: bool) -> None:
    """Raises InputError for two settings that cannot be had together."""
    if full and quantized:
        raise InputError(
            [Problem("recipe", None, "training", "`full` on a quantized base", "`lora`, or `quantization: none`")]
        )
    if dropout and checkpointing:
        found = "`dropout` with gradient_checkpointing: MLX would drop other values when it computes a layer again"
        raise InputError([Problem("recipe", None, "adapter.dropout", found, "`dropout: 0`, or no checkpointing")])
