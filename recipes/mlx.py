"""What a recipe may ask that MLX does not have, told before anything is created, each with the nearest that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recipes.errors import Problem
from recipes.schema import Stage

IN_SEVERAL = ("sft",)
"""Methods that train in several processes on MLX. Stages that train nothing run in one, whatever the recipe says."""
ACCEPTED = (
    "`processes: 1` (a larger `accumulation` gives the same effective batch), or `backend: pytorch` for this stage; "
    "with MLX, SFT trains in several processes"
)
PADDED = "`false` (the losses are the same), or `backend: pytorch`"
NEAREST = "`adamw` (with an adapter its two moments are small anyhow), or `backend: pytorch`"


def mlx_lacks(
    stages: Sequence[Any],
    backend: str,
    processes: int,
    where: str,
    lines: Mapping[tuple[str | int, ...], int],
    attention: str = "auto",
    fixed_order: bool = True,
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
    if ours and not fixed_order:
        found = "`false` with MLX, which has no other order of sums"
        accepted = "`fixed_order: true`, or `backend: pytorch`"
        problems.append(Problem(where, lines.get(("fixed_order",)), "fixed_order", found, accepted))
    alone = [index for index in ours if isinstance(stages[index], Stage) and stages[index].method not in IN_SEVERAL]
    if alone and processes > 1:
        method = stages[alone[0]].method
        found = f"`{processes}` with MLX in stage {alone[0] + 1} ({method}), which trains in one process there"
        problems.append(Problem(where, lines.get(("processes",)), "processes", found, ACCEPTED))
    return problems
