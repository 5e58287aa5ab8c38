"""The bench of an abliteration stage: extract directions, hang a trial's edits onto the policy, write them down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from engine.backends.interface import Conversation
from engine.backends.pytorch.directions import direction_at, prompt_means, refusal_directions
from engine.backends.pytorch.edits import Edit, EditSet, effective_weight, norm_edit, plain_edit, save_edits
from engine.backends.pytorch.layers import writers
from engine.backends.pytorch.policy import TorchPolicy

LEAST = 1e-3
"""Edits weaker than this are left out: they would cost a hook and change nothing to be seen."""


class Bench:
    """Parameters of a trial: ``depth`` (fraction), ``position`` (from the end, -1 the last), ``form``, and for each
    component ``<component>.weight``, ``.peak`` and ``.width`` of a bell over the depth (fractions)."""

    def __init__(self, policy: TorchPolicy) -> None:
        self.policy = policy
        self.writers = writers(policy.model)
        self.depth = 1 + max(writer.layer for writer in self.writers)
        self.directions: torch.Tensor = torch.zeros(0)

    def without_rows(self) -> list[str]:
        """Names of the writers that are no single matrix (fused experts): only the plain form is exact there."""
        return [writer.module for writer in self.writers if not writer.linear]

    def extract(
        self,
        harmful: Sequence[Conversation],
        harmless: Sequence[Conversation],
        positions: int,
        orthogonal: bool,
        path: Path,
        progress: Any = None,
    ) -> None:
        """Directions (layers, positions, H), float64, from the policy as it is; kept in ``path`` for a resume."""
        if not path.is_file():
            total = len(harmful) + len(harmless)
            first = prompt_means(self.policy, harmful, positions, lambda done, _: progress and progress(done, total))
            second = prompt_means(
                self.policy, harmless, positions, lambda done, _: progress and progress(len(harmful) + done, total)
            )
            draft = path.with_suffix(".draft")
            save_file({"directions": refusal_directions(first, second, orthogonal).contiguous()}, draft)
            draft.rename(path)
        self.directions = load_file(path)["directions"]

    def apply(self, parameters: Mapping[str, Any], strength: float) -> int:
        """Replace what acts by a trial's edits; returns their number."""
        edits = self.edits(parameters)
        self.policy.interventions.replace()
        self.policy.interventions.replace(EditSet(self.policy.model, edits, strength))
        return len(edits)

    def edits(self, parameters: Mapping[str, Any]) -> list[Edit]:
        direction = direction_at(self.directions, parameters["depth"], parameters["position"])
        made = []
        for writer in self.writers:
            place = writer.layer / max(self.depth - 1, 1)
            away = (place - parameters[f"{writer.component}.peak"]) / parameters[f"{writer.component}.width"]
            weight = parameters[f"{writer.component}.weight"] * math.exp(-0.5 * away * away)
            if weight < LEAST:
                continue
            if parameters["form"] == "norm":
                matrix = effective_weight(self._module(writer.module))
                made.append(norm_edit(writer.module, direction, weight, matrix))
            else:
                made.append(plain_edit(writer.module, direction, weight))
        return made

    def _module(self, name: str) -> Any:
        from engine.backends.pytorch.heads import causal_model

        return causal_model(self.policy.model).get_submodule(name)

    def save(self, parameters: Mapping[str, Any], path: Path, about: dict[str, str]) -> list[str]:
        """Write the edits of a trial; returns the names of the modules they act on."""
        edits = self.edits(parameters)
        save_edits(edits, path, {**about, "method": "abliteration", "form": str(parameters["form"])})
        return [edit.module for edit in edits]
