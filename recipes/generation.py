"""Who samples the completions of GRPO and RLVR, and what vLLM cannot be asked for together with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recipes.errors import Problem

ACCEPTED = "`generation: auto` or `transformers`"
EDITING = ("abliteration", "steering")
"""Methods that leave something in the lineage which acts on a model beside its weights."""
EDITED = "the lineage's edits act beside the weights, and vLLM would sample from the model without them"


def quantized(bits: str) -> str:
    """Why not on a base in 8 or 4 bit: TRL refuses the first, and of the second hands vLLM the packed weights, which have
    another shape than vLLM's (trl#4973)."""
    return f"vLLM cannot take over the weights of a base in {bits.removesuffix('bit')} bit"


def generation_conflicts(
    stages: Sequence[Any],
    backend: str,
    quantization: str,
    where: str,
    lines: Mapping[tuple[str | int, ...], int],
) -> list[Problem]:
    """Stages that ask for vLLM by name and cannot have it, as far as the recipe alone says. What MLX lacks is told in
    ``recipes.mlx``, what a machine lacks when a run is created."""
    problems = []
    edited = False
    for index, stage in enumerate(stages):
        if getattr(stage, "generation", "auto") == "vllm" and (stage.backend or backend) != "mlx":
            why = EDITED if edited else quantized(quantization) if quantization in ("8bit", "4bit") else ""
            if why:
                line = lines.get(("stages", index, "generation"))
                found = f"`vllm`, but {why}"
                problems.append(Problem(where, line, f"stages.{index}.generation", found, ACCEPTED))
        edited = edited or stage.method in EDITING
    return problems
