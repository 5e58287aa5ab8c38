"""Steering vectors (engine.interventions.vectors) as forward hooks of a PyTorch model's decoder layers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from engine.backends.pytorch.layers import decoder_layers
from engine.interventions.vectors import Vector, check_vectors


def placed(vector: Vector, device: torch.device) -> torch.Tensor:
    """The direction where it is added, in float32; copied there once."""
    key = device, id(vector.direction)
    if key not in vector.placed:
        vector.placed[key] = torch.as_tensor(vector.direction).to(device=device, dtype=torch.float32)
    return vector.placed[key]


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
        check_vectors(self.vectors, len(layers), model.config.get_text_config().hidden_size)
        self._handles: list[Any] = [layers[0].register_forward_pre_hook(self._count)]
        # Conditions look first: their hooks come before the ones that add something to the same layer.
        for layer in sorted({vector.condition.layer for vector in vectors if vector.condition}):
            self._handles.append(layers[layer].register_forward_hook(self._watch(layer)))
        for layer in sorted({vector.layer for vector in vectors}):
            self._handles.append(layers[layer].register_forward_hook(self._add(layer)))

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
                    score = opening @ torch.as_tensor(vector.condition.direction).to(opening)
                    self._held[number] = score > vector.condition.threshold
                    vector.has_fired(self._held[number])

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
                added = vector.coefficient * placed(vector, hidden.device)
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
