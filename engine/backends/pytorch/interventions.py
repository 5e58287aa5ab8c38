"""The edits and vectors that act on a loaded model, hooked on by this backend."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from engine.backends.pytorch.edits import EditSet
from engine.backends.pytorch.vectors import VectorSet
from engine.interventions.acting import Acting
from engine.interventions.edits import load_edits
from engine.interventions.files import verified
from engine.interventions.vectors import load_vector
from engine.models.lineage import Lineage


class Interventions(Acting[EditSet | VectorSet]):
    """See engine.interventions.acting; here, how they are told of a batch."""

    @property
    def vectors(self) -> list[VectorSet]:
        return [one for one in self.all if isinstance(one, VectorSet)]

    @contextlib.contextmanager
    def batch(self, starts: torch.Tensor | None = None) -> Iterator[None]:
        """Around one batch: generation, or teacher forcing with each row's first steered position (B,)."""
        with contextlib.ExitStack() as stack:
            for one in self.vectors:
                stack.enter_context(one.fresh())
                if starts is not None:
                    stack.enter_context(one.completions_from(starts))
            yield


def attach(model: Any, lineage: Lineage, run_folder: Path) -> Interventions:
    """Hook the lineage's edits and vectors onto a model. Raises InputError if a file is not what the lineage says."""
    interventions = Interventions()
    for entry in lineage.edits:
        edits = load_edits(verified(entry, run_folder))
        interventions.lineage.append(EditSet(model, edits, entry["strength"]))
    if lineage.vectors:
        vectors = [load_vector(verified(entry, run_folder), entry["strength"]) for entry in lineage.vectors]
        interventions.lineage.append(VectorSet(model, vectors))
    return interventions
