"""The bench of an abliteration stage: extract directions, hang a trial's edits onto the policy, write them down.

What reads activations and what hooks edits on is a backend's; which edits a trial means is here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from engine.backends.interface import Conversation
from engine.interventions.directions import direction_at, refusal_directions
from engine.interventions.edits import Edit, Rows, norm_edit, plain_edit, save_edits, unit_of
from engine.interventions.files import store
from engine.interventions.writers import Writer

LEAST = 1e-3
"""Edits weaker than this are left out: they would cost a hook and change nothing to be seen."""


class AbliterationBench(ABC):
    """Parameters of a trial: ``depth`` (fraction), ``position`` (from the end, -1 the last), ``form``, and for each
    component ``<component>.weight``, ``.peak`` and ``.width`` of a bell over the depth (fractions)."""

    def __init__(self, writers: list[Writer]) -> None:
        self.writers = writers
        self.depth = 1 + max(writer.layer for writer in writers)
        self.directions = np.zeros(0)

    @abstractmethod
    def prompt_means(
        self, prompts: Sequence[Conversation], positions: int, progress: Callable[[int, int], None] | None
    ) -> np.ndarray:
        """Mean residual stream after each layer at the last prompt tokens: (layers, positions, H), float64."""

    @abstractmethod
    def rows(self, module: str, unit: np.ndarray) -> Rows:
        """Of the matrix that the module applies now, dequantized and with its adapter."""

    @abstractmethod
    def hang(self, edits: Sequence[Edit], strength: float) -> None:
        """Put these edits in the place of what the stage had acting."""

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
            first = self.prompt_means(harmful, positions, lambda done, _: progress and progress(done, total))
            second = self.prompt_means(
                harmless, positions, lambda done, _: progress and progress(len(harmful) + done, total)
            )
            store({"directions": refusal_directions(first, second, orthogonal)}, path)
        self.directions = load_file(path)["directions"]

    def apply(self, parameters: Mapping[str, Any], strength: float) -> int:
        """Replace what acts by a trial's edits; returns their number."""
        edits = self.edits(parameters)
        self.hang(edits, strength)
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
                made.append(norm_edit(writer.module, direction, weight, self.rows(writer.module, unit_of(direction))))
            else:
                made.append(plain_edit(writer.module, direction, weight))
        return made

    def save(self, parameters: Mapping[str, Any], path: Path, about: dict[str, str]) -> list[str]:
        """Write the edits of a trial; returns the names of the modules they act on."""
        edits = self.edits(parameters)
        save_edits(edits, path, {**about, "method": "abliteration", "form": str(parameters["form"])})
        return [edit.module for edit in edits]
