"""What acts on a loaded model without being in its weights: the lineage's edits and vectors, and those being tried."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from engine.backends.interface import Which


class Hooked(Protocol):
    """Edits or vectors that are hooked onto a model."""

    active: bool

    def detach(self) -> None: ...


One = TypeVar("One", bound=Hooked)


class Acting(Generic[One]):
    """``lineage``: what the stage was given, part of its start. ``stage``: what it adds, part of the policy alone."""

    def __init__(self) -> None:
        self.lineage: list[One] = []
        self.stage: list[One] = []

    @property
    def all(self) -> list[One]:
        return [*self.lineage, *self.stage]

    def replace(self, *stage: One) -> None:
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
