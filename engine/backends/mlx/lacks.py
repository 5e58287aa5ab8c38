"""What a recipe may ask that MLX does not have, each with the nearest that it has."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from recipes.errors import InputError, Problem
from recipes.mlx import ACCEPTED, IN_SEVERAL, Lack, kernel_lacks, stage_lacks


def check_stage(stage: Any) -> None:
    """Raises InputError naming every setting that this backend cannot follow."""
    _refuse(stage_lacks(stage))


def check_kernels(attention: str, fixed_order: bool) -> None:
    """Raises InputError for a kernel by name, and for another order of sums."""
    _refuse(kernel_lacks(attention, fixed_order))


def _refuse(lacks: Sequence[Lack]) -> None:
    if lacks:
        raise InputError([Problem("recipe", None, *lack) for lack in lacks])


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
