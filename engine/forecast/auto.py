"""What a recipe's ``quantization: auto`` means on a machine: nothing is quantized where every stage fits, else 4 bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.forecast.hardware import Hardware
from engine.forecast.model import ModelFacts, find_model
from engine.forecast.of_stages import settings_of_stages
from engine.forecast.verdict import estimate, verdict
from recipes.errors import InputError
from recipes.load import LoadedRecipe

LADDER = ("none", "4bit")
"""Tried in this order. 8 bit is left to whoever asks for it: it takes more than 4 bit and is slower."""
RANKS = ("fits", "tight", "does not fit")


@dataclass(frozen=True)
class Picked:
    """``value`` is none, 8bit or 4bit; ``why`` is a sentence for people, empty where the recipe itself says which."""

    value: str
    why: str = ""


def pick_quantization(loaded: LoadedRecipe, hardware: Hardware) -> Picked:
    """Settle ``auto`` by the arithmetic's word on every stage. Never raises for a model that nobody knows yet: then
    nothing is quantized, and the stage's own forecast tells once the model is here."""
    recipe = loaded.recipe
    if recipe.quantization != "auto":
        return Picked(recipe.quantization)
    if any(getattr(stage, "training", None) == "full" for stage in recipe.stages):
        return Picked("none", "auto: unquantized, since a stage trains all weights")
    try:
        model = find_model(recipe.model, loaded.folder)
        if "quantization_config" in model.config or "quantization" in model.config:
            return Picked("none", "auto: as the model's files are, which are quantized already")
        found = {value: _worst(loaded, model, hardware, value) for value in LADDER}
    except InputError:
        return Picked("none", "auto: unquantized, since the model's shape is not known yet")
    best = min(LADDER, key=lambda value: RANKS.index(found[value][0]))  # the first of equals
    if best == "none":
        return Picked("none", f"auto: unquantized, which {found['none'][0]}")
    word, needed = found["none"]
    return Picked(best, f"auto: 4 bit, since unquantized it needs up to {needed / 1024:.1f} GiB: {word}")


def _worst(loaded: LoadedRecipe, model: ModelFacts, hardware: Hardware, quantization: str) -> tuple[str, float]:
    """The worst verdict over the stages, and the most MiB that one of them may need."""
    found: list[Any] = [
        estimate(model, settings, hardware) for settings in settings_of_stages(loaded, model, hardware, quantization)
    ]
    words = [verdict(one, hardware.available_mib) for one in found]
    return max(words, key=RANKS.index), max(one.high for one in found)
