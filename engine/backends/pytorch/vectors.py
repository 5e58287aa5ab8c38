"""Steering: vectors added to the residual stream while a completion is written, with a dial for each.

A vector acts on the positions that predict the completion's tokens: the last prompt token (the opening of the
assistant's turn) and all that follow. What the cache holds of the prompt before it is that of the unsteered model, so
a dial can be turned between and during turns without reading the prompt again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from engine.backends.pytorch.layers import decoder_layers
from recipes.errors import InputError, Problem

REMEMBERED = 1024
"""Batches for which a vector knows whether its condition held."""


@dataclass(frozen=True)
class Condition:
    """The vector acts only in rows whose last prompt token has a projection above ``threshold`` after ``layer``."""

    layer: int
    direction: torch.Tensor
    threshold: float


@dataclass
class Vector:
    """``strength * calibrated * direction`` is added after ``layer``; the direction (H,) is a unit vector, float32.

    ``calibrated`` is the coefficient that the calibration found, so that a dial at 1 means the same for every vector.
    """

    name: str
    layer: int
    direction: torch.Tensor
    calibrated: float
    strength: float = 1.0
    window: int | None = None
    """Tokens of a completion that are steered, from its first on; None: all."""
    condition: Condition | None = None
    fired: list[torch.Tensor] = field(default_factory=list)
    """For each of the last batches whether the condition held in its rows (B,)."""

    placed: dict[Any, torch.Tensor] = field(default_factory=dict, compare=False, repr=False)

    def on(self, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """The direction where it is added; copied there once."""
        key = device, dtype, id(self.direction)
        if key not in self.placed:
            self.placed[key] = self.direction.to(device=device, dtype=dtype)
        return self.placed[key]

    @property
    def coefficient(self) -> float:
        return self.strength * self.calibrated


class VectorSet:
    """Vectors hooked onto a model. Strengths may be changed at any time and act from the next token on."""

    def __init__(self, model: Any, vectors: Sequence[Vector]) -> None:
        self.vectors = list(vectors)
        self.active = True
        self.starts: torch.Tensor | None = None
        """First steered position of each row (B,); None while generating: then only the last position is."""
        self._step = -1
        """Forward passes since the prompt's own, which is 0: the completion's token that is being predicted."""
        self._held: dict[int, torch.Tensor] = {}
        layers = decoder_layers(model)
        self._check(layers, model)
        self._handles: list[Any] = [layers[0].register_forward_pre_hook(self._count)]
        # Conditions look first: their hooks come before the ones that add something to the same layer.
        for layer in sorted({vector.condition.layer for vector in vectors if vector.condition}):
            self._handles.append(layers[layer].register_forward_hook(self._watch(layer)))
        for layer in sorted({vector.layer for vector in vectors}):
            self._handles.append(layers[layer].register_forward_hook(self._add(layer)))

    def _check(self, layers: Sequence[Any], model: Any) -> None:
        width = model.config.get_text_config().hidden_size
        problems = []
        for vector in self.vectors:
            if vector.direction.numel() != width or not 0 <= vector.layer < len(layers):
                found = f"a vector of width {vector.direction.numel()} for layer {vector.layer}"
                accepted = f"one of width {width} for a layer from 0 to {len(layers) - 1}: it belongs to another model"
                problems.append(Problem("vectors", None, vector.name, found, accepted))
        if problems:
            raise InputError(problems)

    @contextlib.contextmanager
    def completions_from(self, starts: torch.Tensor) -> Iterator[None]:
        """Teacher forcing: steer each row from its own position on."""
        self.starts = starts
        try:
            yield
        finally:
            self.starts = None

    def _count(self, _module: Any, _inputs: Any) -> None:
        self._step += self.active  # other voices of a chat use the same layers in between

    def _watch(self, layer: int) -> Any:
        def after(_module: Any, _inputs: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            if not self.active or self._step > 0:
                return  # what the prompt decided holds for the whole completion
            rows = torch.arange(hidden.shape[0], device=hidden.device)
            last = self.starts if self.starts is not None else torch.full_like(rows, hidden.shape[1] - 1)
            opening = hidden[rows, last].float()
            for number, vector in enumerate(self.vectors):
                if vector.condition is not None and vector.condition.layer == layer:
                    score = opening @ vector.condition.direction.to(opening)
                    self._held[number] = score > vector.condition.threshold
                    vector.fired.append(self._held[number])
                    del vector.fired[:-REMEMBERED]

        return after

    def _add(self, layer: int) -> Any:
        def after(_module: Any, _inputs: Any, output: Any) -> Any:
            if not self.active:
                return None
            hidden = output[0] if isinstance(output, tuple) else output
            steered = None
            for number, vector in enumerate(self.vectors):
                if vector.layer != layer or not vector.coefficient:
                    continue
                inside = self._inside(hidden, vector)
                if inside is None:
                    continue
                if number in self._held:
                    inside = inside * self._held[number].unsqueeze(1)
                added = vector.coefficient * vector.on(hidden.device, torch.float32)
                steered = hidden if steered is None else steered
                steered = steered + inside.unsqueeze(-1) * added.to(hidden.dtype)
            if steered is None:
                return None
            return (steered, *output[1:]) if isinstance(output, tuple) else steered

        return after

    def _inside(self, hidden: torch.Tensor, vector: Vector) -> torch.Tensor | None:
        """(B, T) of 1 where the vector acts and 0 elsewhere; None if nowhere."""
        positions = torch.arange(hidden.shape[1], device=hidden.device)
        if self.starts is not None:
            since = positions.unsqueeze(0) - self.starts.unsqueeze(1)
            inside = (since >= 0) if vector.window is None else (since >= 0) & (since < vector.window)
            return inside.to(hidden.dtype)
        if vector.window is not None and self._step >= vector.window:
            return None
        return (positions == hidden.shape[1] - 1).to(hidden.dtype).expand(hidden.shape[0], -1)

    @contextlib.contextmanager
    def fresh(self) -> Iterator[None]:
        """Around each batch: no decision of an earlier prompt is left over."""
        self._held, self._step = {}, -1
        try:
            yield
        finally:
            self._held, self._step = {}, -1

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


def save_vector(vector: Vector, path: Path, about: dict[str, str]) -> None:
    """One safetensors file for one vector; layer, coefficient and condition are one JSON text in its metadata."""
    tensors = {"direction": vector.direction.float().contiguous().clone()}
    facts: dict[str, Any] = {
        **about,
        "name": vector.name,
        "layer": vector.layer,
        "calibrated": vector.calibrated,
        "window": vector.window,
    }
    if vector.condition is not None:
        tensors["condition"] = vector.condition.direction.float().contiguous().clone()
        facts["condition"] = {"layer": vector.condition.layer, "threshold": vector.condition.threshold}
    save_file(tensors, path, metadata={"finetune-tui": json.dumps(facts)})


def load_vector(path: Path, strength: float = 1.0) -> Vector:
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["finetune-tui"])
        seen = facts.get("condition")
        condition = Condition(seen["layer"], file.get_tensor("condition"), seen["threshold"]) if seen else None
        direction = file.get_tensor("direction")
    return Vector(facts["name"], facts["layer"], direction, facts["calibrated"], strength, facts["window"], condition)


def cosine(first: torch.Tensor, second: torch.Tensor) -> float:
    """Cosine of the angle between two vectors: near 0 they compose, near -1 they undo each other."""
    one, other = first.double(), second.double()
    return float(one.dot(other) / (one.norm() * other.norm()))
