"""What a recipe may ask that MLX does not have, told before anything is created, each with the nearest that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from recipes.errors import Problem
from recipes.schema import Stage

IN_SEVERAL = ("sft",)
"""Methods that train in several processes on MLX. Stages that train nothing run in one, whatever the recipe says."""
ACCEPTED = (
    "`processes: 1` (a larger `accumulation` gives the same effective batch), or `backend: pytorch` for this stage; "
    "with MLX, SFT trains in several processes"
)


class Lack(NamedTuple):
    """``setting`` of a stage or of the recipe, what it is and why that cannot be followed, and what can."""

    setting: str
    found: str
    accepted: str


def stage_lacks(stage: Any) -> list[Lack]:
    """Of a stage that MLX is to run."""
    lacks = []
    optimizer = getattr(stage, "optimizer", "adamw")
    if optimizer != "adamw":
        found = f"`{optimizer}`: a bitsandbytes optimizer, which MLX does not have"
        accepted = "`adamw` (with an adapter its two moments are small anyhow), or `backend: pytorch`"
        lacks.append(Lack("optimizer", found, accepted))
    if getattr(stage, "padding_free", False):
        found = "`true` with MLX, which pads the rows of a micro-batch"
        lacks.append(Lack("padding_free", found, "`false` (the losses are the same), or `backend: pytorch`"))
    generation = getattr(stage, "generation", "auto")
    if generation != "auto":
        found = f"`{generation}` with MLX, which samples the completions itself"
        lacks.append(Lack("generation", found, "`generation: auto`, or `backend: pytorch`"))
    return lacks


def kernel_lacks(attention: str, fixed_order: bool) -> list[Lack]:
    """Of a recipe that MLX is to run: its kernels by name and their order of sums are PyTorch's."""
    lacks = []
    if attention != "auto":
        found = f"`{attention}`: a kernel of PyTorch's; MLX has one fused attention of its own"
        lacks.append(Lack("attention", found, "`attention: auto`, or `backend: pytorch`"))
    if not fixed_order:
        found = "`false` with MLX, which has no other order of sums"
        lacks.append(Lack("fixed_order", found, "`fixed_order: true`, or `backend: pytorch`"))
    return lacks


def mlx_lacks(
    stages: Sequence[Any],
    backend: str,
    processes: int,
    where: str,
    lines: Mapping[tuple[str | int, ...], int],
    attention: str,
    fixed_order: bool,
) -> list[Problem]:
    """Of the stages that the recipe itself gives to MLX; what ``auto`` comes to is known where it runs."""
    problems = []
    ours = [index for index, stage in enumerate(stages) if (stage.backend or backend) == "mlx"]
    for index in ours:
        for lack in stage_lacks(stages[index]):
            line = lines.get(("stages", index, lack.setting))
            problems.append(Problem(where, line, f"stages.{index}.{lack.setting}", lack.found, lack.accepted))
    for lack in kernel_lacks(attention, fixed_order) if ours else ():
        problems.append(Problem(where, lines.get((lack.setting,)), lack.setting, lack.found, lack.accepted))
    alone = [index for index in ours if isinstance(stages[index], Stage) and stages[index].method not in IN_SEVERAL]
    if alone and processes > 1:
        method = stages[alone[0]].method
        found = f"`{processes}` with MLX in stage {alone[0] + 1} ({method}), which trains in one process there"
        problems.append(Problem(where, lines.get(("processes",)), "processes", found, ACCEPTED))
    return problems
