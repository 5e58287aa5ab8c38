"""What a recipe may ask that MLX does not have, told before anything is created, each with the nearest that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recipes.errors import Problem

PADDED = "`false` (the losses are the same), or `backend: pytorch`"
NEAREST = "`adamw` (with an adapter its two moments are small anyhow), or `backend: pytorch`"


def mlx_lacks(
    stages: Sequence[Any],
    backend: str,
    processes: int,
    where: str,
    lines: Mapping[tuple[str | int, ...], int],
    attention: str = "auto",
) -> list[Problem]:
    """Of the stages that the recipe itself gives to MLX; what ``auto`` comes to is known where it runs."""
    problems = []
    ours = [index for index, stage in enumerate(stages) if (stage.backend or backend) == "mlx"]
    for index in ours:
        optimizer = getattr(stages[index], "optimizer", "adamw")
        if optimizer != "adamw":
            found = f"`{optimizer}`: a bitsandbytes optimizer, which MLX does not have"
            line = lines.get(("stages", index, "optimizer"))
            problems.append(Problem(where, line, f"stages.{index}.optimizer", found, NEAREST))
        if getattr(stages[index], "padding_free", False):
            found = "`true` with MLX, which pads the rows of a micro-batch"
            line = lines.get(("stages", index, "padding_free"))
            problems.append(Problem(where, line, f"stages.{index}.padding_free", found, PADDED))
    if ours and attention != "auto":
        found = f"`{attention}`: a kernel of PyTorch's; MLX has one fused attention of its own"
        accepted = "`attention: auto`, or `backend: pytorch`"
        problems.append(Problem(where, lines.get(("attention",)), "attention", found, accepted))
    if ours and processes > 1:
        found = f"`{processes}` with MLX in stage {ours[0] + 1}, which trains in one process here"
        accepted = "`processes: 1` (a larger `accumulation` gives the same effective batch), or `backend: pytorch`"
        problems.append(Problem(where, lines.get(("processes",)), "processes", found, accepted))
    return problems
