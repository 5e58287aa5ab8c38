"""Tier 3's other side: the forecast of the batch that a stage measures when it is launched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.forecast.hardware import this_machine
from engine.forecast.model import from_folder
from engine.forecast.plan import computes_in
from engine.forecast.settings import GROUPS, from_stage
from engine.forecast.verdict import estimate
from recipes.errors import InputError


def forecast_of(recipe: Any, stage: Any, index: int, base: Path, length: int) -> dict[str, Any] | None:
    """The arithmetic's figures for the stage's training step at ``length`` tokens; None for a base without a config.

    On a GPU the allocator's reserved memory is what a stage can measure of itself; on a CPU, the whole process.
    """
    try:
        model = from_folder(base, recipe.model)
        hardware = this_machine()
        quantization = recipe.quantization if recipe.quantization != "auto" else "none"
        dtype = computes_in(recipe.dtype, hardware)
        settings = from_stage(recipe, stage, inherited_adapter=index > 0, dtype=dtype, quantization=quantization)
    except InputError:
        return None
    if hardware.kind == "cuda":
        hardware = replace(hardware, context_mib=0.0)
    settings = replace(settings, length=length, evaluation_prompts=0)
    if settings.method in GROUPS:  # the probe answers the longest prompt up to the limit
        settings = replace(settings, prompt_length=max(1, length - settings.max_new_tokens))
    found = estimate(model, settings, hardware)
    return {name: value for name, value in found.to_json().items() if name != "parts"}
