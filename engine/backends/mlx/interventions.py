"""The edits and vectors that act on a loaded model, hooked on by this backend."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx

from engine.backends.mlx.edits import EditSet
from engine.backends.mlx.network import Network
from engine.backends.mlx.vectors import VectorSet
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
