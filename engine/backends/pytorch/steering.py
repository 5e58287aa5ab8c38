"""The bench of a steering stage: read vectors off contrasts, hang candidates onto the policy, write them down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from engine.backends.interface import Conversation
from engine.backends.pytorch.directions import Contrast, contrast, prompt_means
from engine.backends.pytorch.policy import TorchPolicy
from engine.backends.pytorch.vectors import Condition, Vector, VectorSet, cosine, save_vector

Row = tuple[Conversation, str]


class Bench:
    """A candidate is a mapping: ``persona``, ``depth`` (fraction), ``source``, ``form``, ``window`` and ``strength``,
    the last in mean norms of the residual stream where it is added."""

    def __init__(self, policy: TorchPolicy) -> None:
        self.policy = policy
        self._contrasts: dict[tuple[str, str], Contrast] = {}
        self._conditions: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    # ---- reading off ---------------------------------------------------------------------------------------------

    def extract(
        self, persona: str, source: str, positive: Sequence[Row], negative: Sequence[Row], path: Path, progress: Any
    ) -> None:
        """A persona's directions from one source, at every layer; kept in ``path`` for a resume."""
        if not path.is_file():
            found = contrast(self.policy, positive, negative, progress)
            tensors = {"mean": found.mean, "pca": found.pca, "norms": found.norms}
            draft = path.with_suffix(".draft")
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, draft)
            draft.rename(path)
        stored = load_file(path)
        self._contrasts[persona, source] = Contrast(stored["mean"], stored["pca"], stored["norms"])

    def extract_condition(
        self, persona: str, own: Sequence[Conversation], general: Sequence[Conversation], path: Path
    ) -> None:
        """What tells the persona's prompts from general ones at the last prompt token, at every layer."""
        if not path.is_file():
            means = [prompt_means(self.policy, prompts, 1)[:, 0].contiguous() for prompts in (own, general)]
            draft = path.with_suffix(".draft")
            save_file({"own": means[0], "general": means[1]}, draft)
            draft.rename(path)
        stored = load_file(path)
        self._conditions[persona] = stored["own"], stored["general"]

    def _condition(self, persona: str, layer: int) -> Condition | None:
        if persona not in self._conditions:
            return None
        own, general = (means[layer] for means in self._conditions[persona])
        direction = (own - general) / (own - general).norm()
        return Condition(layer, direction.float(), float(direction.dot(own + general) / 2))

    # ---- hanging on ----------------------------------------------------------------------------------------------

    def vector(self, candidate: Mapping[str, Any], factor: float = 1.0) -> Vector:
        found = self._contrasts[candidate["persona"], candidate["source"]]
        layer = round(candidate["depth"] * (len(found.norms) - 1))
        return Vector(
            name=candidate["persona"],
            layer=layer,
            direction=found.form(candidate["form"])[layer].float(),
            calibrated=candidate["strength"] * float(found.norms[layer]),
            strength=factor,
            window=candidate["window"],
            condition=self._condition(candidate["persona"], layer),
        )

    def apply(self, candidates: Sequence[Mapping[str, Any]], factors: Sequence[float] | None = None) -> None:
        """Replace what acts by these vectors, each times its factor; none at all for an empty sequence."""
        scaled = zip(candidates, factors or [1.0] * len(candidates), strict=True)
        vectors = [self.vector(candidate, factor) for candidate, factor in scaled]
        self.policy.interventions.replace()
        if vectors:
            self.policy.interventions.replace(VectorSet(self.policy.model, vectors))

    def apply_random(
        self, candidates: Sequence[Mapping[str, Any]], seed: int, factors: Sequence[float] | None = None
    ) -> None:
        """Random directions instead of the candidates', as long and in the same places: the floor of side effects."""
        draw = torch.Generator().manual_seed(seed)
        vectors = []
        for candidate, factor in zip(candidates, factors or [1.0] * len(candidates), strict=True):
            vector = self.vector(candidate, factor)
            drawn = torch.randn(vector.direction.shape, generator=draw)
            vector.direction = drawn / drawn.norm()
            vectors.append(vector)
        self.policy.interventions.replace()
        self.policy.interventions.replace(VectorSet(self.policy.model, vectors))

    def fires(self, candidate: Mapping[str, Any], prompts: Sequence[Conversation]) -> int:
        """In how many of the prompts the candidate's condition holds."""
        vector = self.vector(candidate)
        self.policy.interventions.replace()
        self.policy.interventions.replace(VectorSet(self.policy.model, [vector]))
        self.policy.generate(prompts, max_new_tokens=1, temperature=0.0, seed=0)
        return sum(int(rows.sum()) for rows in vector.fired)

    def layer(self, candidate: Mapping[str, Any]) -> int:
        return self.vector(candidate).layer

    def cosine(self, first: Mapping[str, Any], second: Mapping[str, Any]) -> float:
        return cosine(self.vector(first).direction, self.vector(second).direction)

    def save(self, candidate: Mapping[str, Any], path: Path, about: dict[str, str]) -> dict[str, Any]:
        """Write a candidate's vector; returns its layer and its coefficient at a dial of 1."""
        vector = self.vector(candidate)
        save_vector(vector, path, about)
        return {"name": vector.name, "layer": vector.layer, "calibrated": vector.calibrated, "window": vector.window}
