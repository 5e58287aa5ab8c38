"""The models that can be chosen: the lab's, those on this machine, the catalogue, and what the hub finds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.forecast.hardware import Hardware
from engine.forecast.model import catalogue, find_model
from engine.models.hub_search import cached_models
from recipes.errors import InputError
from recipes.resources import resolve_model
from tui.wizard.fit import WORST, least

KINDS = {
    "lab": "comes with finetune-tui, nothing to download",
    "here": "on this machine",
    "catalogue": "in the catalogue, downloaded when the run starts",
    "hub": "found on the hub",
}


@dataclass(frozen=True)
class Choice:
    """A model by the word that a recipe uses for it. ``note`` is a word on it; ``kind`` one of KINDS."""

    word: str
    kind: str
    parameters: int = 0
    note: str = ""


def at_hand() -> list[Choice]:
    """The lab's models, the hub cache, then the catalogue by size."""
    found = [
        Choice("lab", "lab", 0, "3 M parameters, to learn and to try"),
        Choice("lab-nano", "lab", 0, "0.3 M, for a quick look"),
    ]
    cached = cached_models()
    found += [Choice(word, "here", _parameters(word), "in the hub cache") for word in cached]
    entries = {entry["ids"][0]: entry["parameters"] for entry in catalogue().values()}
    rest = [Choice(word, "catalogue", count) for word, count in entries.items() if word not in cached]
    return found + sorted(rest, key=lambda one: one.parameters)


def _parameters(word: str) -> int:
    try:
        return find_model(word).parameters
    except InputError:
        return 0


def matching(choices: list[Choice], typed: str) -> list[Choice]:
    """Those that have every typed word in their name; first those whose name begins so."""
    words = typed.lower().split()
    found = [one for one in choices if all(word in one.word.lower() for word in words)]
    return sorted(found, key=lambda one: not (words and one.word.lower().startswith(words[0])))


def needed(
    word: str, methods: tuple[str, ...], hardware: Hardware, folder: Path | None = None
) -> tuple[float, str] | None:
    """``(MiB, verdict)`` of the hungriest method at its cheapest; None for a model that nothing is known of."""
    try:
        facts = find_model(word, folder)
    except InputError:
        return None
    found = [least(method, facts, hardware) for method in methods]
    return max(found, key=lambda one: (WORST[one[1]], one[0]))


def fault(word: str, folder: Path) -> str:
    """Why a typed word cannot be a model; empty where it can be one."""
    if not word:
        return "type a name, or choose one below"
    local = resolve_model(word, folder)
    if local is not None:
        if not (local / "config.json").is_file():
            return f"{local} has no config.json: a model's directory has one, and *.safetensors"
        if not list(local.glob("*.safetensors")):
            return f"{local} has no *.safetensors (pickled weights are never loaded)"
        return ""
    if word.startswith(("/", ".", "~")):
        return f"there is no directory `{word}`"
    if word.count("/") != 1 or not all(word.split("/")):
        return f"`{word}` is no directory here and no hub id such as owner/name"
    return ""
