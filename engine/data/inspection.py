"""What an inspection finds, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from engine.data.endings import Endings
from engine.data.leakage import Leakage
from engine.data.lengths import Lengths
from engine.data.readings import Reading
from engine.data.served import Served
from engine.data.verifiable import Verifiable
from recipes.errors import Problem

SHOWN = 20
"""Problems that are told one by one; the rest is counted."""


@dataclass
class Inspection:
    """Everything that was found. ``problems`` are faults that a run would refuse; ``warnings`` are not."""

    path: str
    files: int
    size: int
    rows: int = 0
    bad_rows: int = 0
    reading: Reading | None = None
    readings: list[Reading] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    columns: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    near_duplicates: int = 0
    near_compared: int = 0
    same_sides: int = 0
    unanswerable: int = 0
    with_steps: int = 0
    """Different rows that say how many steps a solution needs."""
    gap: float | None = None
    scored: int = 0
    chosen_longer: float | None = None
    characters: Lengths | None = None
    tokens: Lengths | None = None
    endings: Endings | None = None
    verifiability: Verifiable | None = None
    leakage: Leakage | None = None
    serves: list[Served] = field(default_factory=list)
    example: list[dict[str, Any]] = field(default_factory=list)

    def fault(self, problem: Problem) -> None:
        self.bad_rows += 1
        if len(self.problems) < SHOWN:
            self.problems.append(problem)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
