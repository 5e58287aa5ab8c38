"""What each stage of a recipe runs with, as the forecast's settings."""

from __future__ import annotations

from dataclasses import replace

from engine.forecast.call import check_possible
from engine.forecast.hardware import Hardware
from engine.forecast.model import ModelFacts
from engine.forecast.settings import Settings, from_stage
from recipes.errors import InputError
from recipes.load import LoadedRecipe


def settings_of_stages(
    loaded: LoadedRecipe, model: ModelFacts, hardware: Hardware, quantization: str
) -> list[Settings]:
    """What each stage runs with, as the engine would, the base loaded with ``quantization`` (the recipe's may be
    ``auto``: engine/forecast/auto.py). Raises InputError for what is impossible."""
    recipe = loaded.recipe
    where = str(loaded.path or recipe.name)
    backend = hardware.backend if recipe.backend == "auto" else recipe.backend
    found, problems = [], []
    for index, stage in enumerate(recipe.stages):
        inherited = any(getattr(earlier, "training", "full") == "lora" for earlier in recipe.stages[:index])
        try:
            settings = from_stage(
                recipe,
                stage,
                inherited_adapter=inherited,
                dtype=computes_in(recipe.dtype, hardware),
                quantization=quantization,
            )
            settings = replace(settings, backend=backend)
            if "max_length" not in stage.model_fields_set and model.max_length:  # nobody asked for the default
                settings = replace(settings, length=min(settings.length, model.max_length))
            check_possible(model, settings, where, "max_length")
            found.append(settings)
        except InputError as error:
            problems += [replace(one, where=where, field=f"stages.{index}.{one.field}") for one in error.problems]
    if problems:
        raise InputError(problems)
    return found


def computes_in(dtype: str, hardware: Hardware) -> str:
    """The precision that a recipe's word means there (``engine.backends.pytorch.device.pick_dtype``)."""
    if dtype != "auto":
        return dtype
    return "bf16" if hardware.kind == "apple" or (hardware.kind == "cuda" and hardware.has_bf16) else "fp32"
