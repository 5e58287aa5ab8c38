"""Several runs side by side: what their recipes differ in, their gates, and each gauge of each. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.report import figure
from engine.runs.events import GateEvent
from engine.runs.state import RunState, StageState
from tui.view.gauges import CHART_POINTS, Limits, targets_of, title_of

MARKERS = (("●", "o"), ("■", "x"), ("▲", "+"), ("◆", "#"), ("★", "@"), ("▼", "v"))
"""Sign of each run, in Unicode and in ASCII: lines differ without colours."""
MOST = len(MARKERS)
ABSENT = "–"


@dataclass(frozen=True)
class Compared:
    """One of the runs, as it was read."""

    id: str
    status: str
    state: RunState
    recipe: Mapping[str, Any]
    """As resolved, plain data; empty where it cannot be read."""


@dataclass(frozen=True)
class Course:
    """One gauge of one run."""

    run: int
    steps: list[int]
    values: list[float]


@dataclass(frozen=True)
class Overlay:
    """A gauge of the same stage in every run that has it."""

    stage: str
    key: str
    title: str
    courses: list[Course]
    target: Limits
    """Only where all runs have the same."""


@dataclass(frozen=True)
class Cell:
    value: float
    passed: bool
    limit: str
    n: int


@dataclass(frozen=True)
class GateRow:
    stage: str
    name: str
    cells: list[Cell | None]

    @property
    def limit(self) -> str:
        """Where it is the same for all; else each cell says its own."""
        found = {cell.limit for cell in self.cells if cell is not None}
        return found.pop() if len(found) == 1 else ""

    @property
    def words(self) -> str:
        return f"{self.stage} {self.name} {self.limit}".rstrip()

    def figures(self, place: int) -> str:
        """``0.0445 n 400``, with its limit where the runs differ in it."""
        cell = self.cells[place]
        if cell is None:
            return ABSENT
        shown = figure(cell.value) if cell.n else ABSENT
        return f"{shown}{'' if self.limit else f' ({cell.limit})'} n {cell.n}"


@dataclass(frozen=True)
class Difference:
    """A field of the recipe in which the runs differ; values as text, ``–`` where a run does not have it."""

    field: str
    values: list[str]


@dataclass(frozen=True)
class Comparison:
    ids: list[str]
    labels: list[str]
    statuses: list[str]
    differences: list[Difference]
    gates: list[GateRow]
    charts: list[tuple[str, str, str]]
    """(stage, gauge, title) of everything that can be overlaid, in the order in which one walks through it."""


def compare(runs: Sequence[Compared]) -> Comparison:
    ids = [run.id for run in runs]
    return Comparison(
        ids, short_labels(ids), [run.status for run in runs], differences(runs), _gates(runs), _charts(runs)
    )


def short_labels(ids: Sequence[str]) -> list[str]:
    """The names without what all ids have in common at their ends: a name, or the part that tells them apart."""
    parts = [one.split("-") for one in ids]
    shortest = min(map(len, parts), default=0)
    same = 0
    while same < shortest - 1 and len({part[same] for part in parts}) == 1:
        same += 1
    return ["-".join(part[same:]) for part in parts]


# ---- recipes -------------------------------------------------------------------------------------------------------------


def differences(runs: Sequence[Compared]) -> list[Difference]:
    """Dotted fields, stages named by their number and method, in the order of the recipes."""
    flat = [dict(_flat(run.recipe)) for run in runs]
    fields = list(dict.fromkeys(field for one in flat for field in one))
    rows = [Difference(field, [one.get(field, ABSENT) for one in flat]) for field in fields]
    return [row for row in rows if len(set(row.values)) > 1]


def _flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        found = []
        for key, inner in value.items():
            found += _flat(inner, f"{path}.{key}" if path else str(key))
        return found or [(path, "{}")]
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        found = []
        for number, item in enumerate(value, start=1):
            name = f"{number} {item['method']}" if isinstance(item, Mapping) and "method" in item else str(number)
            found += _flat(item, name if path == "stages" else f"{path}.{name}")
        return found
    return [(path, _word(value))]


def _word(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(_word, value)) if isinstance(value, list) else str(value)


# ---- stages --------------------------------------------------------------------------------------------------------------


def stage_names(state: RunState) -> dict[str, StageState]:
    """Stages by their method, a second of the same method as ``dpo 2``: how the runs' stages find each other."""
    found: dict[str, StageState] = {}
    for stage in state.stages:
        same = sum(name.split(" ")[0] == stage.method for name in found)
        found[f"{stage.method} {same + 1}" if same else stage.method] = stage
    return found


def _gates(runs: Sequence[Compared]) -> list[GateRow]:
    stages = [stage_names(run.state) for run in runs]
    names = dict.fromkeys((stage, gate) for one in stages for stage, state in one.items() for gate in state.gates)
    rows = []
    for stage, name in names:
        cells = [_cell(one[stage].gates.get(name)) if stage in one else None for one in stages]
        rows.append(GateRow(stage, name, cells))
    return rows


def _cell(gate: GateEvent | None) -> Cell | None:
    if gate is None:
        return None
    return Cell(float(gate.value), gate.passed, str(Limits(gate.min, gate.max)), gate.n)


# ---- charts --------------------------------------------------------------------------------------------------------------

FIRST = ("loss", "kl", "reward", "refusal_rate", "token_accuracy")


def _charts(runs: Sequence[Compared]) -> list[tuple[str, str, str]]:
    found: dict[tuple[str, str], str] = {}
    for run in runs:
        for name, stage in stage_names(run.state).items():
            known = [key for key in FIRST if key in stage.series] + sorted(set(stage.series) - set(FIRST))
            for key in known:
                found.setdefault((name, key), title_of(run.state, stage, key))
    stages = list(dict.fromkeys(stage for stage, _ in found))
    return [
        (stage, key, title) for (stage, key), title in sorted(found.items(), key=lambda one: stages.index(one[0][0]))
    ]


def overlay(runs: Sequence[Compared], stage: str, key: str) -> Overlay:
    courses, targets, title = [], [], key
    for number, run in enumerate(runs):
        one = stage_names(run.state).get(stage)
        if one is None or key not in one.series:
            continue
        courses.append(Course(number, *one.series[key].thinned(CHART_POINTS)))
        targets.append(targets_of(run.state, one).get(key, Limits()))
        title = title_of(run.state, one, key)
    same = targets and all(target == targets[0] for target in targets)
    return Overlay(stage, key, title, courses, targets[0] if same else Limits())


def to_json(comparison: Comparison, runs: Sequence[Compared]) -> dict[str, Any]:
    """What ``compare --json`` prints."""
    return {
        "runs": [
            {
                "id": run.id,
                "status": run.status,
                "code": run.state.code,
                "stages": [stage.method for stage in run.state.stages],
            }
            for run in runs
        ],
        "recipe": {row.field: dict(zip(comparison.ids, row.values, strict=True)) for row in comparison.differences},
        "gates": [
            {
                "stage": row.stage,
                "name": row.name,
                "runs": {
                    run: None
                    if cell is None
                    else {"value": cell.value, "passed": cell.passed, "limit": cell.limit, "n": cell.n}
                    for run, cell in zip(comparison.ids, row.cells, strict=True)
                },
            }
            for row in comparison.gates
        ],
        "gauges": [{"stage": stage, "name": key} for stage, key, _ in comparison.charts],
    }
