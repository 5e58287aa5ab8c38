"""The live figures of a stage: the three gauges with their targets, the charts, and one chart looked at closely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from engine.runs.state import RunState, Series, StageState
from tui.view.series import Trend, part, smoothed, trend

CHART_POINTS = 1000
TITLES = {
    "loss": "loss", "kl": "KL est", "reward": "reward", "grad_norm": "grad norm", "token_accuracy": "token accuracy",
    "learning_rate": "learning rate", "tokens_per_second": "tokens/s", "memory_mib": "memory MiB", "seconds": "s/step",
    "refusal_rate": "refusals", "silent_groups": "silent groups", "clipped": "completions cut off",
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """A target: at least ``minimum``, at most ``maximum``; ``words`` when it is no number."""

    minimum: float | None = None
    maximum: float | None = None
    words: str = ""

    def holds(self, value: float) -> bool:
        return (self.minimum is None or value >= self.minimum) and (self.maximum is None or value <= self.maximum)

    def numbers(self) -> list[float]:
        return [limit for limit in (self.minimum, self.maximum) if limit is not None]

    def __str__(self) -> str:
        parts = [] if self.minimum is None else [f"≥ {self.minimum:g}"]
        parts += [] if self.maximum is None else [f"≤ {self.maximum:g}"]
        return " and ".join(parts) or self.words


@dataclass(frozen=True)
class Gauge:
    """One of the three live figures. ``value`` is None while (or where) there is none; ``note`` says why."""

    key: str
    label: str
    value: float | None
    trend: Trend
    target: Limits
    scale: float
    """The gauge's right end."""
    good: bool | None
    """Whether the target holds now; None where the target is no number or nothing is known."""
    note: str = ""


@dataclass(frozen=True)
class Chart:
    key: str
    title: str
    steps: list[int]
    values: list[float]
    target: Limits


@dataclass(frozen=True)
class Look:
    """What somebody wants to see of a run."""

    stage: int | None = None
    """None: whichever runs."""
    gauge: str | None = None
    """The gauge of the chart that fills the screen; None: no chart does."""
    span: int | None = None
    """Steps that it shows; None: all."""
    end: int | None = None
    """The last of them; None: it follows the newest."""


@dataclass(frozen=True)
class Zoom:
    """One chart, as much of it as is looked at, at full resolution."""

    chart: Chart
    gauges: list[str]
    """Every gauge of the stage, in the order in which one walks through them."""
    first: int
    last: int
    newest: int
    words: list[str] = field(default_factory=list)
    """Figures about what is shown."""


# ---- targets -------------------------------------------------------------------------------------------------------------


def limits_of(state: RunState, stage: StageState | None, gate: str) -> Limits:
    if stage is None:
        return Limits()
    described = state.detail.get("stages", [])
    gates = described[stage.index].get("gates", {}) if stage.index < len(described) else {}
    low, high = gates.get(gate, (None, None))
    return Limits(low, high)


def targets_of(state: RunState, stage: StageState | None) -> dict[str, Limits]:
    """The target of each live figure: the gate's limits, in force or not, since the gauge is an estimate of its figure."""
    gap = limits_of(state, stage, "preference_gap")
    # The loss of a policy gradient says nothing by itself: it neither falls nor rises as the policy gets better.
    grouped = stage is not None and "silent_groups" in stage.series
    return {
        "loss": Limits(words="" if grouped else "falling"),
        "kl": limits_of(state, stage, "kl"),
        "reward": gap if str(gap) else Limits(words="rising"),
        "refusal_rate": limits_of(state, stage, "refusal_rate"),
        "advantage_variance": limits_of(state, stage, "advantage_variance"),
    }


def title_of(state: RunState, stage: StageState | None, key: str) -> str:
    if key == "reward" and stage is not None and str(limits_of(state, stage, "preference_gap")):
        return "margin"
    if key == "reward" and stage is not None and "refusal_rate" in stage.series:
        return "comply"  # the share that a trial complied with
    return TITLES.get(key, key.replace("_", " "))


# ---- gauges --------------------------------------------------------------------------------------------------------------


MEASURED = {"kl": ("kl", "KL"), "reward": ("preference_gap", "gap")}
"""Live figure -> the gate whose figure it estimates, and what that is called."""


def gauges_of(state: RunState, stage: StageState | None) -> list[Gauge]:
    targets = targets_of(state, stage)
    absent = {"reward": "SFT has no reward" if stage is not None and stage.method == "sft" else ""}
    if stage is not None and stage.series and "loss" not in stage.series:
        absent["loss"] = "a search has no loss"
    return [
        _measured(stage, key, targets[key])
        or _gauge(stage, key, title_of(state, stage, key), targets[key], absent.get(key, ""))
        for key in ("loss", "kl", "reward")
    ]


def _measured(stage: StageState | None, key: str, target: Limits) -> Gauge | None:
    """Of a stage that is over, what its gate measured: the estimate's last word may be another than the gate's."""
    gate_name, label = MEASURED.get(key, ("", ""))
    gate = stage.gates.get(gate_name) if stage is not None and stage.status in ("done", "failed") else None
    value = math.nan if gate is None else float(gate.value)
    if gate is None or not math.isfinite(value):
        return None
    return Gauge(key, label, value, "", target, _scale([value], target), gate.passed)


def _gauge(stage: StageState | None, key: str, label: str, target: Limits, absent: str) -> Gauge:
    series = stage.series.get(key) if stage is not None else None
    if series is None or not series.values:
        return Gauge(key, label, None, "", target, _scale([], target), None, absent)
    last = series.values[-1]
    value = smoothed(series.values) if math.isfinite(last) else last
    moving = trend(series.values)
    if value is None or not math.isfinite(value):
        return Gauge(key, label, value, moving, target, _scale(series.values, target), False, "not a number")
    if not target.numbers():
        good = {"falling": moving != "rising", "rising": moving != "falling"}.get(target.words) if moving else None
    else:
        good = target.holds(value)
    return Gauge(key, label, value, moving, target, _scale(series.values, target), good)


def _scale(values: Sequence[float], target: Limits) -> float:
    """The gauge's right end: room for what it has shown and for its target, the target not at the very edge."""
    finite = [value for value in values[-400:] if math.isfinite(value)]
    edge = max([0.0, *finite, *(1.5 * limit for limit in target.numbers())])
    return edge or 1.0


# ---- charts --------------------------------------------------------------------------------------------------------------


def charts_of(state: RunState, stage: StageState | None) -> list[Chart]:
    """The four that stand on the monitor."""
    if stage is None:
        return []
    targets = targets_of(state, stage)
    charts = []
    for key in _chosen(stage):
        series = stage.series.get(key) or Series()
        steps, values = series.thinned(CHART_POINTS)
        charts.append(Chart(key, title_of(state, stage, key), steps, values, targets.get(key, Limits())))
    return charts


def _chosen(stage: StageState) -> tuple[str, ...]:
    if "refusal_rate" in stage.series:  # a search for an edit: its steps are trials
        return "refusal_rate", "kl"
    return "loss", "kl", "reward" if "reward" in stage.series else "token_accuracy", "grad_norm"


def zoom_of(state: RunState, stage: StageState | None, look: Look) -> Zoom | None:
    if stage is None or look.gauge is None:
        return None
    known = list(stage.series)
    gauges = [key for key in _chosen(stage) if key in known] + sorted(set(known) - set(_chosen(stage)))
    key = look.gauge if look.gauge in gauges or not gauges else gauges[0]
    series = stage.series.get(key) or Series()
    oldest, newest = (series.steps[0], series.steps[-1]) if series.steps else (0, 1)
    last = newest if look.end is None else max(oldest + 1, min(newest, look.end))
    first = oldest if look.span is None else max(oldest, last - look.span + 1)
    if (first, last) == (oldest, newest):  # keeps its means from view to view
        steps, values = series.thinned(CHART_POINTS)
    else:
        steps, values = part(series.steps, series.values, first, last, CHART_POINTS)
    target = targets_of(state, stage).get(key, Limits())
    chart = Chart(key, title_of(state, stage, key), steps, values, target)
    return Zoom(chart, gauges or [key], first, last, newest, _figures(values))


def _figures(values: Sequence[float]) -> list[str]:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return []
    words = [f"last {values[-1]:.4g}", f"mean {math.fsum(finite) / len(finite):.4g}"]
    words += [f"min {min(finite):.4g}", f"max {max(finite):.4g}"]
    gaps = len(values) - len(finite)
    return [*words, f"{gaps} not a number"] if gaps else words
