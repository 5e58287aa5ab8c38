"""What the monitor shows of a run, as plain data: a pure function of the reducer's state. No Textual in here."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engine.report import duration
from engine.runs.events import AlertEvent, GateEvent, SampleEvent
from engine.runs.state import RunState, Series, StageState
from tui.eta import Eta
from tui.view.series import Trend, smoothed, trend

PHASES = ("fetching", "loading", "measuring before", "training", "measuring after", "saving")
PHASE_LABELS = {"fetching": "get model", "loading": "load", "measuring before": "measure", "training": "train",
                "measuring after": "measure", "saving": "save"}  # fmt: skip
CHART_POINTS = 1000
Mark = Literal["done", "now", "waiting", "failed"]


@dataclass(frozen=True)
class Limits:
    """A target: at least ``minimum``, at most ``maximum``; ``words`` when it is no number."""

    minimum: float | None = None
    maximum: float | None = None
    words: str = ""

    def holds(self, value: float) -> bool:
        return (self.minimum is None or value >= self.minimum) and (self.maximum is None or value <= self.maximum)

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
class RailStage:
    index: int
    method: str
    mark: Mark
    words: str
    share: float
    """Share of its steps that are done, 0 to 1."""


@dataclass(frozen=True)
class RunView:
    status: str
    gate_failed: bool
    headline: str
    rail: list[RailStage]
    phases: list[tuple[str, Mark]]
    phase_words: str
    gauges: list[Gauge]
    charts: list[Chart]
    facts: list[str]
    gates: list[tuple[int, GateEvent]]
    waiting_gates: list[tuple[str, str]]
    """Gates of the shown stage that have not been decided: (name, limit in words)."""
    samples: list[SampleEvent]
    alerts: list[AlertEvent]
    eta_stage: float | None
    eta_run: float | None


def view_of(state: RunState, status: str, eta: Eta, now: float, stage: int | None = None) -> RunView:
    """``status`` is the log's corrected by whether anybody works on the run; ``stage`` the one to look at (default:
    the running one, else the last that ran)."""
    shown = state.stages[stage] if stage is not None and stage < len(state.stages) else _shown(state)
    left_stage, left_run = eta.left(state, now) if status == "running" else (None, None)
    return RunView(
        status=status,
        gate_failed=status == "done" and state.code != 0,
        headline=_headline(state, status, left_run, now),
        rail=[_rail(one, status) for one in state.stages],
        phases=_phases(state, shown, status),
        phase_words=_phase_words(state, shown, status, left_stage),
        gauges=_gauges(state, shown),
        charts=_charts(state, shown),
        facts=_facts(shown),
        gates=[(one.index, gate) for one in state.stages for gate in one.gates.values()],
        waiting_gates=_waiting_gates(state, shown),
        samples=shown.samples if shown else [],
        alerts=state.alerts,
        eta_stage=left_stage,
        eta_run=left_run,
    )


def _shown(state: RunState) -> StageState | None:
    begun = [stage for stage in state.stages if stage.status != "waiting"]
    running = [stage for stage in begun if stage.status == "running"]
    found = running or begun or state.stages
    return found[-1] if found else None


# ---- the run and its stages ------------------------------------------------------------------------------------------


def status_words(state: RunState, status: str) -> str:
    """How a run stands, in words that fit a list: the reason in words where it failed."""
    if status == "done":
        return "all gates passed" if state.code == 0 else state.reason
    if status == "interrupted":
        return "nobody works on it (killed, or the machine went down); resume carries on"
    if status in ("failed", "paused", "stopped", "queued"):
        return state.reason
    stage = state.current
    if stage is None:
        return ""
    return (
        f"stage {stage.index + 1} of {len(state.stages)}, {stage.method}: {stage.steps_done}/{stage.steps_total} steps"
    )


def resumable(state: RunState, status: str) -> tuple[bool, str]:
    """Whether a run can be resumed, and why not if not."""
    if status == "done":
        return False, "it is done"
    if status in ("running", "queued"):
        return False, f"it is {status}"
    return True, ""


def _headline(state: RunState, status: str, left_run: float | None, now: float) -> str:
    took = ""
    if state.started:
        took = duration((state.ended or now) - state.started)
    if status == "running":
        left = f", {duration(left_run)} left" if left_run is not None else ""
        return f"running for {took}{left}" if took else "starting"
    if status == "done":
        return f"done in {took}, {status_words(state, status)}"
    words = status_words(state, status)
    return f"{status}: {words}" if words else status


def _rail(stage: StageState, status: str) -> RailStage:
    share = stage.steps_done / stage.steps_total if stage.steps_total else 0.0
    if stage.status == "done":
        mark: Mark = "done" if stage.passed is not False else "failed"
        words = "gates passed" if stage.passed is not False else "a gate failed"
    elif stage.status == "failed":
        mark, words = "failed", "failed"
    elif stage.status == "running":
        mark, words = "now", f"{stage.steps_done}/{stage.steps_total}"
        if status != "running":
            words += f", {status}"
    else:
        mark, words = "waiting", f"{stage.steps_total} steps"
    return RailStage(stage.index, stage.method, mark, words, share)


def _position(state: RunState, stage: StageState | None) -> int:
    """Index into PHASES of where the stage is."""
    if stage is None or (stage.status == "waiting" and stage.index == 0):
        return 0
    if stage.phase in ("loading", "saving", "training", "fetching"):
        return PHASES.index(stage.phase)
    if stage.phase == "evaluating":
        if stage.steps_total and stage.steps_done >= stage.steps_total:
            return PHASES.index("measuring after")
        return PHASES.index("training" if stage.steps_done else "measuring before")
    return 1


def _phases(state: RunState, stage: StageState | None, status: str) -> list[tuple[str, Mark]]:
    labels = [PHASE_LABELS[name] for name in PHASES]
    if stage is not None and stage.status == "done":
        return [(label, "done") for label in labels]
    here = _position(state, stage)
    now: Mark = "failed" if stage is not None and stage.status == "failed" else "now"
    if stage is None or stage.status == "waiting" and status in ("queued", "created"):
        now = "waiting"
    return [
        (label, "done" if place < here else now if place == here else "waiting") for place, label in enumerate(labels)
    ]


def _phase_words(state: RunState, stage: StageState | None, status: str, left: float | None) -> str:
    """What is being done at this moment, with how far it is."""
    if status != "running" or stage is None:
        return ""
    if stage.status == "waiting":
        fetching = state.detail.get("phase")
        if fetching is not None and fetching.total:
            share = f"{fetching.done / 2**20:.0f} of {fetching.total / 2**20:.0f} MiB"
            return f"getting the model: {fetching.detail} {share}"
        return "starting"
    if stage.phase == "training" or not stage.phase:
        return f"step {stage.steps_done} of {stage.steps_total}" + (
            f", this stage has {duration(left)} left" if left is not None else ""
        )
    share = f" {stage.phase_done:.0f}/{stage.phase_total:.0f} {stage.phase_unit}" if stage.phase_total else ""
    return f"{stage.phase_detail or stage.phase}{share}"


# ---- gauges and charts -----------------------------------------------------------------------------------------------


def _limits(state: RunState, stage: StageState | None, gate: str) -> Limits:
    if stage is None:
        return Limits()
    described = state.detail.get("stages", [])
    gates = described[stage.index].get("gates", {}) if stage.index < len(described) else {}
    low, high = gates.get(gate, (None, None))
    return Limits(low, high)


def _targets(state: RunState, stage: StageState | None) -> dict[str, Limits]:
    """The target of each live figure: the gate's limits, in force or not, since the gauge is an estimate of its figure."""
    kl = _limits(state, stage, "kl")
    gap = _limits(state, stage, "preference_gap")
    # The loss of a policy gradient says nothing by itself: it neither falls nor rises as the policy gets better.
    grouped = stage is not None and "silent_groups" in stage.series
    return {
        "loss": Limits(words="" if grouped else "falling"),
        "kl": kl,
        "reward": gap if str(gap) else Limits(words="rising"),
    }


def _gauges(state: RunState, stage: StageState | None) -> list[Gauge]:
    targets = _targets(state, stage)
    reward = "margin" if stage is not None and str(_limits(state, stage, "preference_gap")) else "reward"
    absent = {"reward": "SFT has no reward" if stage is not None and stage.method == "sft" else ""}
    return [
        _gauge(stage, key, label, targets[key], absent.get(key, ""))
        for key, label in (("loss", "loss"), ("kl", "KL est"), ("reward", reward))
    ]


def _gauge(stage: StageState | None, key: str, label: str, target: Limits, absent: str) -> Gauge:
    series = stage.series.get(key) if stage is not None else None
    if series is None or not series.values:
        return Gauge(key, label, None, "", target, _scale([], target), None, absent)
    last = series.values[-1]
    value = smoothed(series.values) if math.isfinite(last) else last
    moving = trend(series.values)
    if value is None or not math.isfinite(value):
        return Gauge(key, label, value, moving, target, _scale(series.values, target), False, "not a number")
    if target.minimum is None and target.maximum is None:
        good = {"falling": moving != "rising", "rising": moving != "falling"}.get(target.words) if moving else None
    else:
        good = target.holds(value)
    return Gauge(key, label, value, moving, target, _scale(series.values, target), good)


def _scale(values: Sequence[float], target: Limits) -> float:
    """The gauge's right end: room for what it has shown and for its target, the target not at the very edge."""
    finite = [value for value in values[-400:] if math.isfinite(value)]
    edge = max([0.0, *finite, *(1.5 * limit for limit in (target.minimum, target.maximum) if limit is not None)])
    return edge or 1.0


def _charts(state: RunState, stage: StageState | None) -> list[Chart]:
    if stage is None:
        return []
    targets = _targets(state, stage)
    chosen = [
        ("loss", "loss"),
        ("kl", "KL est"),
        ("reward", _gauges(state, stage)[2].label),
        ("grad_norm", "grad norm"),
    ]
    if "reward" not in stage.series:
        chosen = [("loss", "loss"), ("kl", "KL est"), ("token_accuracy", "token accuracy"), ("grad_norm", "grad norm")]
    charts = []
    for key, title in chosen:
        series = stage.series.get(key) or Series()
        steps, values = series.thinned(CHART_POINTS)
        charts.append(Chart(key, title, steps, values, targets.get(key, Limits())))
    return charts


# ---- figures -------------------------------------------------------------------------------------------------------------


def _facts(stage: StageState | None) -> list[str]:
    """Learning rate, gradient norm, throughput and memory of the last step."""
    facts = {
        "learning_rate": "lr {:.3g}", "grad_norm": "grad {:.3g}", "tokens_per_second": "{:,.0f} tok/s",
        "seconds": "{:.2f} s/step", "memory_mib": "{:,.0f} MiB",
    }  # fmt: skip
    shown = []
    for name, form in facts.items():
        series = stage.series.get(name) if stage is not None else None
        if series and series.values:
            shown.append(_number(series.values[-1], form))
    return shown


def _number(value: float, form: str) -> str:
    return form.format(value) if math.isfinite(value) else re.sub("{.*}", str(value), form)


def _waiting_gates(state: RunState, stage: StageState | None) -> list[tuple[str, str]]:
    if stage is None:
        return []
    described = state.detail.get("stages", [])
    gates = described[stage.index].get("gates", {}) if stage.index < len(described) else {}
    return [(name, str(Limits(*limits))) for name, limits in gates.items() if name not in stage.gates]
