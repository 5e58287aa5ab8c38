"""The bench of a steering stage: read vectors off contrasts, hang candidates onto the policy, write them down.

What reads activations and what hooks vectors on is a backend's; which vector a candidate means is here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from engine.backends.interface import Conversation
from engine.interventions.directions import Contrast, Side, contrast_of
from engine.interventions.files import store
from engine.interventions.vectors import Condition, Vector, cosine, save_vector

Row = tuple[Conversation, str]


class SteeringBench(ABC):
    """A candidate is a mapping: ``persona``, ``depth`` (fraction), ``source``, ``form``, ``window`` and ``strength``,
    the last in mean norms of the residual stream where it is added."""

    def __init__(self) -> None:
        self._contrasts: dict[tuple[str, str], Contrast] = {}
        self._conditions: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    # ---- a backend's part ----------------------------------------------------------------------------------------

    @abstractmethod
    def prompt_means(self, prompts: Sequence[Conversation], positions: int) -> np.ndarray:
        """Mean residual stream after each layer at the last prompt tokens: (layers, positions, H), float64."""

    @abstractmethod
    def completion_means(self, rows: Sequence[Row], progress: Any) -> Side:
        """Of each row, the mean residual stream over the positions that predict its completion (Contrast's ``Side``)."""

    @abstractmethod
    def hang(self, vectors: Sequence[Vector]) -> None:
        """Put these vectors (or none) in the place of what the stage had acting."""

    @abstractmethod
    def held(self, vector: Vector, prompts: Sequence[Conversation]) -> int:
        """In how many of the prompts the condition of this vector, now acting, holds."""

    # ---- reading off ---------------------------------------------------------------------------------------------

    def extract(
        self, persona: str, source: str, positive: Sequence[Row], negative: Sequence[Row], path: Path, progress: Any
    ) -> None:
        """A persona's directions from one source, at every layer; kept in ``path`` for a resume."""
        if not path.is_file():
            total = len(positive) + len(negative)
            first = self.completion_means(positive, lambda done: progress and progress(done, total))
            second = self.completion_means(negative, lambda done: progress and progress(len(positive) + done, total))
            found = contrast_of(first, second)
            store({"mean": found.mean, "pca": found.pca, "norms": found.norms}, path)
        stored = load_file(path)
        self._contrasts[persona, source] = Contrast(stored["mean"], stored["pca"], stored["norms"])

    def extract_condition(
        self, persona: str, own: Sequence[Conversation], general: Sequence[Conversation], path: Path
    ) -> None:
        """What tells the persona's prompts from general ones at the last prompt token, at every layer."""
        if not path.is_file():
            first, second = (self.prompt_means(prompts, 1)[:, 0] for prompts in (own, general))
            store({"own": first, "general": second}, path)
        stored = load_file(path)
        self._conditions[persona] = stored["own"], stored["general"]

    def _condition(self, persona: str, layer: int) -> Condition | None:
        if persona not in self._conditions:
            return None
        own, general = (means[layer] for means in self._conditions[persona])
        direction = (own - general) / np.linalg.norm(own - general)
        return Condition(layer, direction.astype(np.float32), float(direction @ (own + general) / 2))

    # ---- hanging on ----------------------------------------------------------------------------------------------

    def vector(self, candidate: Mapping[str, Any], factor: float = 1.0) -> Vector:
        found = self._contrasts[candidate["persona"], candidate["source"]]
        layer = round(candidate["depth"] * (len(found.norms) - 1))
        return Vector(
            name=candidate["persona"],
            layer=layer,
            direction=found.form(candidate["form"])[layer].astype(np.float32),
            calibrated=candidate["strength"] * float(found.norms[layer]),
            strength=factor,
            window=candidate["window"],
            condition=self._condition(candidate["persona"], layer),
        )

    def apply(self, candidates: Sequence[Mapping[str, Any]], factors: Sequence[float] | None = None) -> None:
        """Replace what acts by these vectors, each times its factor; none at all for an empty sequence."""
        scaled = zip(candidates, factors or [1.0] * len(candidates), strict=True)
        self.hang([self.vector(candidate, factor) for candidate, factor in scaled])

    def apply_random(
        self, candidates: Sequence[Mapping[str, Any]], seed: int, factors: Sequence[float] | None = None
    ) -> None:
        """Random directions instead of the candidates', as long and in the same places: the floor of side effects."""
        draw = np.random.default_rng(seed)
        vectors = []
        for candidate, factor in zip(candidates, factors or [1.0] * len(candidates), strict=True):
            vector = self.vector(candidate, factor)
            drawn = draw.standard_normal(len(vector.direction))
            vector.direction = (drawn / np.linalg.norm(drawn)).astype(np.float32)
            vectors.append(vector)
        self.hang(vectors)

    def fires(self, candidate: Mapping[str, Any], prompts: Sequence[Conversation]) -> int:
        """In how many of the prompts the candidate's condition holds."""
        vector = self.vector(candidate)
        self.hang([vector])
        return self.held(vector, prompts)

    def layer(self, candidate: Mapping[str, Any]) -> int:
        return self.vector(candidate).layer

    def cosine(self, first: Mapping[str, Any], second: Mapping[str, Any]) -> float:
        return cosine(self.vector(first).direction, self.vector(second).direction)

    def save(self, candidate: Mapping[str, Any], path: Path, about: dict[str, str]) -> dict[str, Any]:
        """Write a candidate's vector; returns its layer and its coefficient at a dial of 1."""
        vector = self.vector(candidate)
        save_vector(vector, path, about)
        return {"name": vector.name, "layer": vector.layer, "calibrated": vector.calibrated, "window": vector.window}
