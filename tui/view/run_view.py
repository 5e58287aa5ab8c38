"""What the monitor shows of a run, as plain data: a pure function of the reducer's state. No Textual in here."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from engine.report import duration
from engine.runs.events import AlertEvent, GateEvent, SampleEvent
from engine.runs.state import RunState, StageState
from tui.eta import Eta
from tui.view.conditions import Condition, Surroundings, conditions_of
from tui.view.gauges import Chart, Gauge, Limits, Look, Zoom, charts_of, gauges_of, zoom_of
from tui.view.pictures import Pictures, pictures_of
from tui.view.plan import Planned, planned_of

PHASES = ("fetching", "loading", "measuring before", "training", "measuring after", "saving")
PHASE_LABELS = {"fetching": "get model", "loading": "load", "measuring before": "measure", "training": "train",
                "measuring after": "measure", "saving": "save"}  # fmt: skip
Mark = Literal["done", "now", "waiting", "failed"]


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
    waiting_gates: list[tuple[str, str, str]]
    """Gates of the shown stage that have not been decided: (name, limit in words, whether they may be yet)."""
    samples: list[SampleEvent]
    alerts: list[AlertEvent]
    conditions: list[Condition]
    """What asks for attention at this moment."""
    planned: list[Planned]
    """Forecast and actual of each stage."""
    pictures: Pictures
    zoom: Zoom | None
    shown: int | None
    """The stage that is looked at."""
    eta_stage: float | None
    eta_run: float | None


def view_of(
    state: RunState,
    status: str,
    eta: Eta,
    now: float,
    look: Look = Look(),  # noqa: B008 - frozen
    around: Surroundings = Surroundings(),  # noqa: B008
) -> RunView:
    """``status`` is the log's corrected by whether anybody works on the run; ``look.stage`` the one to look at
    (default: the running one, else the last that ran); ``around`` what the machine says."""
    shown = state.stages[look.stage] if look.stage is not None and look.stage < len(state.stages) else _shown(state)
    left_stage, left_run = eta.left(state, now) if status == "running" else (None, None)
    return RunView(
        status=status,
        gate_failed=status == "done" and state.code != 0,
        headline=_headline(state, status, left_run, now),
        rail=[_rail(one, status) for one in state.stages],
        phases=_phases(state, shown, status),
        phase_words=_phase_words(state, shown, status, left_stage),
        gauges=gauges_of(state, shown),
        charts=charts_of(state, shown),
        facts=_facts(shown),
        gates=[(one.index, gate) for one in state.stages for gate in one.gates.values()],
        waiting_gates=_waiting_gates(state, shown),
        samples=list(shown.samples) if shown else [],
        alerts=list(state.alerts),
        conditions=conditions_of(state, shown, status, now, around),
        planned=planned_of(state, now, left_stage),
        pictures=pictures_of(shown),
        zoom=zoom_of(state, shown, look),
        shown=shown.index if shown else None,
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


def _waiting_gates(state: RunState, stage: StageState | None) -> list[tuple[str, str, str]]:
    if stage is None:
        return []
    described = state.detail.get("stages", [])
    gates = described[stage.index].get("gates", {}) if stage.index < len(described) else {}
    words = "not measured" if stage.status == "done" else "not decided yet"
    return [(name, str(Limits(*limits)), words) for name, limits in gates.items() if name not in stage.gates]
