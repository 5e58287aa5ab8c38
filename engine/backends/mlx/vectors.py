"""Steering vectors (engine.interventions.vectors) hooked onto the decoder layers of an mlx-lm model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import mlx.core as mx

from engine.backends.mlx.hooks import After, Hook
from engine.backends.mlx.network import Network
from engine.interventions.vectors import Vector, check_vectors


class VectorSet:
    """Vectors hooked onto a model. Strengths may be changed at any time and act from the next token on."""

    def __init__(self, network: Network, vectors: Sequence[Vector]) -> None:
        self.vectors = list(vectors)
        self.active = True
        self.starts: mx.array | None = None
        """First steered position of each row (B,) in teacher forcing; None while generating."""
        self.step: int | None = None
        """While generating: which of the completion's tokens the last position predicts; None: it predicts none, the
        prompt is being read."""
        self._held: dict[int, mx.array] = {}
        check_vectors(self.vectors, len(network.layers), network.width)
        # Conditions look first: their hooks come before the ones that add something to the same layer.
        watched = sorted({vector.condition.layer for vector in vectors if vector.condition})
        self._hooks = [Hook(network.layers[layer], self._watch(layer)) for layer in watched]
        added = sorted({vector.layer for vector in vectors})
        self._hooks += [Hook(network.layers[layer], self._add(layer)) for layer in added]

    def _watch(self, layer: int) -> After:
        def after(output: Any) -> Any:
            hidden = _hidden(output)
            if self.active and self.starts is not None:
                self._decide(layer, hidden[mx.arange(hidden.shape[0]), self.starts])
            elif self.active and self.step == 0:  # what the prompt decided holds for the whole completion
                self._decide(layer, hidden[:, -1])
            return output

        return after

    def _decide(self, layer: int, opening: mx.array) -> None:
        for number, vector in enumerate(self.vectors):
            if vector.condition is not None and vector.condition.layer == layer:
                score = opening.astype(mx.float32) @ mx.array(vector.condition.direction)
                self._held[number] = score > vector.condition.threshold
                vector.has_fired(self._held[number])

    def _add(self, layer: int) -> After:
        def after(output: Any) -> Any:
            if not self.active or (self.starts is None and self.step is None):
                return output
            hidden = _hidden(output)
            steered = None
            for number, vector in enumerate(self.vectors):
                if vector.layer != layer or not vector.coefficient:
                    continue
                inside = self._inside(hidden, vector)
                if inside is None:
                    continue
                if number in self._held:
                    inside = inside * self._held[number][:, None]
                added = (vector.coefficient * _placed(vector)).astype(hidden.dtype)
                steered = hidden if steered is None else steered
                steered = steered + inside.astype(hidden.dtype)[..., None] * added
            if steered is None:
                return output
            return (steered, *output[1:]) if isinstance(output, tuple) else steered

        return after

    def _inside(self, hidden: mx.array, vector: Vector) -> mx.array | None:
        """(B, T) true where the vector acts; None if nowhere."""
        rows, length = hidden.shape[:2]
        positions = mx.arange(length)[None]
        if self.starts is not None:
            since = positions - self.starts[:, None]
            return (since >= 0) if vector.window is None else (since >= 0) & (since < vector.window)
        if vector.window is not None and self.step is not None and self.step >= vector.window:
            return None
        return mx.broadcast_to(positions == length - 1, (rows, length))

    def keep(self, rows: mx.array) -> None:
        """Only these rows of the batch go on."""
        self._held = {number: held[rows] for number, held in self._held.items()}

    @contextlib.contextmanager
    def fresh(self, starts: mx.array | None) -> Iterator[None]:
        """Around each batch: no decision of an earlier prompt is left over."""
        self._held, self.step, self.starts = {}, None, starts
        try:
            yield
        finally:
            self._held, self.step, self.starts = {}, None, None

    def detach(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


def _hidden(output: Any) -> mx.array:
    return output[0] if isinstance(output, tuple) else output


def _placed(vector: Vector) -> mx.array:
    """The direction as MLX's array; made once."""
    key = id(vector.direction)
    if key not in vector.placed:
        vector.placed[key] = mx.array(vector.direction)
    return vector.placed[key]
