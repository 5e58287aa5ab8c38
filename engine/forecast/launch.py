"""Tier 3's other side: the forecast of the batch that a stage measures when it is launched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.forecast.cost import Cost, known_of
from engine.forecast.duration import duration, stage_signature
from engine.forecast.hardware import Hardware, this_machine
from engine.forecast.model import ModelFacts, from_folder
from engine.forecast.of_stages import computes_in
from engine.forecast.rates import measured_here, record_of
from engine.forecast.settings import GROUPS, Settings, from_stage
from engine.forecast.verdict import estimate
from engine.forecast.workload import workload
from recipes.errors import InputError
from recipes.load import LoadedRecipe
from recipes.schema import quantization_of


def forecast_of(recipe: Any, stage: Any, index: int, base: Path, length: int) -> dict[str, Any] | None:
    """The arithmetic's figures for the stage's training step at ``length`` tokens; None for a base without a config.

    On a GPU the allocator's reserved memory is what a stage can measure of itself; on a CPU, the whole process.
    """
    known = _known(recipe, stage, index, base)
    if known is None:
        return None
    model, settings, hardware = known
    settings = replace(settings, length=length, evaluation_prompts=0, gpus=1)  # a process measures itself
    if settings.method in GROUPS:  # the probe answers the longest prompt up to the limit
        settings = replace(settings, prompt_length=max(1, length - settings.max_new_tokens))
    found = estimate(model, settings, hardware)
    return {name: value for name, value in found.to_json().items() if name != "parts"}


def expectation(loaded: LoadedRecipe, stage: Any, index: int, base: Path) -> dict[str, Any] | None:
    """``{"memory", "time_s"}`` of a whole stage on this machine, its longest rows and its evaluations included."""
    known = _known(loaded.recipe, stage, index, base)
    if known is None:
        return None
    model, settings, hardware = known
    if "max_length" not in stage.model_fields_set and model.max_length:  # nobody asked for the default
        settings = replace(settings, length=min(settings.length, model.max_length))
    one = estimate(model, replace(settings, gpus=1), hardware)  # as a process will measure itself
    memory = {name: value for name, value in one.to_json().items() if name != "parts"}
    records = measured_here(hardware.name, hardware.backend)
    signature = stage_signature(loaded.recipe, index)
    taken = duration(model, settings, hardware, workload(loaded, index), records, signature)
    return {"memory": memory, "time_s": taken.to_json()}


def outlook(
    loaded: LoadedRecipe, stage: Any, index: int, base: Path, measured: dict[str, Any]
) -> dict[str, float] | None:
    """Seconds ``during`` and ``after`` the steps of a stage under way that has ``measured`` so much (engine/stages/work)."""
    known = _known(loaded.recipe, stage, index, base)
    if known is None:
        return None
    model, settings, hardware = known
    now = record_of(loaded, stage, index, base, measured)
    work = workload(loaded, index)
    found = Cost(
        model, settings, hardware, known_of(measured_here(hardware.name, hardware.backend), model, now=now)
    ).around(work)
    return {when: round(found[when], 3) for when in ("during", "after")}


def _known(recipe: Any, stage: Any, index: int, base: Path) -> tuple[ModelFacts, Settings, Hardware] | None:
    try:
        model = from_folder(base, recipe.model)
        hardware = this_machine()
        quantization = quantization_of(recipe)
        dtype = computes_in(recipe.dtype, hardware)
        settings = from_stage(recipe, stage, inherited_adapter=index > 0, dtype=dtype, quantization=quantization)
    except InputError:
        return None
    # A stage can measure of itself what its allocator reserved, not the driver's context.
    return model, settings, replace(hardware, context_mib=0.0) if hardware.kind == "cuda" else hardware
