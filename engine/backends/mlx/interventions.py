"""What acts on a loaded model without being in its weights: the lineage's edits and vectors, and those being tried."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx

from engine.backends.interface import Which
from engine.backends.mlx.edits import EditSet
from engine.backends.mlx.network import Network
from engine.backends.mlx.vectors import VectorSet
from engine.interventions.edits import load_edits
from engine.interventions.files import verified
from engine.interventions.vectors import load_vector
from engine.models.lineage import Lineage


class Interventions:
    """``lineage``: what the stage was given, part of its start. ``stage``: what it adds, part of the policy alone."""

    def __init__(self) -> None:
        self.lineage: list[EditSet | VectorSet] = []
        self.stage: list[EditSet | VectorSet] = []

    @property
    def all(self) -> list[EditSet | VectorSet]:
        return [*self.lineage, *self.stage]

    @property
    def vectors(self) -> list[VectorSet]:
        return [one for one in self.all if isinstance(one, VectorSet)]

    def replace(self, *stage: EditSet | VectorSet) -> None:
        """Take the stage's own away and put these (already hooked on) in their place."""
        for one in self.stage:
            if one not in stage:
                one.detach()
        self.stage = list(stage)

    @contextlib.contextmanager
    def of(self, which: Which) -> Iterator[None]:
        """Only what belongs to those weights acts; the base is the base."""
        wanted = {"policy": self.all, "start": self.lineage, "base": []}[which]
        before = [one.active for one in self.all]
        for one in self.all:
            one.active = one in wanted and one.active
        try:
            yield
        finally:
            for one, active in zip(self.all, before, strict=True):
                one.active = active

    @contextlib.contextmanager
    def batch(self, starts: mx.array | None = None) -> Iterator[None]:
        """Around one batch: generation, or teacher forcing with each row's first steered position (B,)."""
        with contextlib.ExitStack() as stack:
            for one in self.vectors:
                stack.enter_context(one.fresh(starts))
            yield

    # ---- while generating ----------------------------------------------------------------------------------------

    def predict(self, step: int) -> None:
        """The next forward pass predicts this token of the completion, 0 the first."""
        for one in self.vectors:
            one.step = step

    def keep(self, rows: mx.array) -> None:
        """Only these rows of the batch go on."""
        for one in self.vectors:
            one.keep(rows)


def attach(network: Network, lineage: Lineage, run_folder: Path) -> Interventions:
    """Hook the lineage's edits and vectors onto a model. Raises InputError if a file is not what the lineage says."""
    interventions = Interventions()
    for entry in lineage.edits:
        interventions.lineage.append(EditSet(network, load_edits(verified(entry, run_folder)), entry["strength"]))
    if lineage.vectors:
        vectors = [load_vector(verified(entry, run_folder), entry["strength"]) for entry in lineage.vectors]
        interventions.lineage.append(VectorSet(network, vectors))
    return interventions
