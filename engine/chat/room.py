"""Whether the models of a chat fit beside what uses the device now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.chat.places import Place
from engine.forecast.arithmetic import BYTES, kv_bytes, weight_bytes
from engine.forecast.hardware import this_machine
from engine.forecast.model import from_folder
from engine.forecast.of_stages import computes_in
from engine.forecast.settings import Settings
from engine.runs.directory import RunDirectory, list_runs, status
from engine.runs.lock import held
from recipes.load import load_recipe
from recipes.schema import quantization_of

LENGTH = 4096
"""Tokens of conversation that are priced, if the model reads as many."""
BESIDE_TRAINING = 0.85
"""Share of the available memory that a chat may take beside a training, which may yet grow to its peak."""
MIB = 2**20


@dataclass(frozen=True)
class Room:
    need_mib: float
    available_mib: float
    device: str
    training: tuple[str, ...]
    """Runs at work on this machine now."""

    @property
    def fits(self) -> bool:
        return self.need_mib <= self.available_mib * (BESIDE_TRAINING if self.training else 1.0)

    def __str__(self) -> str:
        words = f"the chat needs about {_size(self.need_mib)}, {_size(self.available_mib)} are free on {self.device}"
        if self.training:
            words += f" beside {', '.join(self.training)}, which is at work and may grow"
        return words


def room_for(run: RunDirectory, sides: Sequence[Place]) -> Room:
    """What loading these sides takes: each base once, each adapter, and a cache for each side's conversation."""
    recipe = load_recipe(str(run.recipe)).recipe
    hardware = this_machine()
    quantization = quantization_of(recipe)
    settings = Settings(dtype=computes_in(recipe.dtype, hardware), quantization=quantization, loop="stage")
    need, bases = hardware.context_mib * MIB, set()
    for place in sides:
        base = Path(place.lineage.base.path)
        base = base if base.is_absolute() else run.path / base
        model = from_folder(base, place.lineage.base.id)
        if base not in bases:
            bases.add(base)
            need += weight_bytes(model, settings)
        if place.lineage.adapter is not None:
            folder = run.path / place.lineage.adapter.path
            need += sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        length = min(LENGTH, model.max_length or LENGTH)
        need += kv_bytes(model, 1, length, BYTES[settings.dtype])
        need += length * (3 * model.active_intermediate + 4 * model.hidden) * BYTES[settings.dtype]
    training = tuple(
        other.id for other in list_runs() if held(other.lock) and status(other, other.state()) == "running"
    )
    return Room(need / MIB, hardware.available_mib, hardware.name, training)


def _size(mib: float) -> str:
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"
