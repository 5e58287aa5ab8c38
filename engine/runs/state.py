"""The state of a run as one pure reducer over its events: live view, resume, replay and tests all read this."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from typing import Any

from engine.runs.events import (
    AlertEvent,
    AnyEvent,
    CheckpointEvent,
    ExitEvent,
    GateEvent,
    HeartbeatEvent,
    MetricEvent,
    OutlookEvent,
    PhaseEvent,
    RunEvent,
    SampleEvent,
    StageEvent,
    StepEvent,
)  # fmt: skip
from engine.runs.log import no_collection

KEPT_SAMPLES = 50
KEPT_ALERTS = 200


class Series:
    """One gauge over the steps, in order; ``values`` are floats, NaN and infinities included.

    Arrays, not lists: the garbage collector walks through a list of a million floats, and the screen waits for it.
    """

    __slots__ = ("_means", "steps", "values")

    def __init__(self) -> None:
        self.steps = array("q")
        self.values = array("d")
        self._means: tuple[int, list[float]] = (1, [])

    def cut(self, step: int) -> None:
        """Forget what lies after ``step``: an attempt went back to its checkpoint."""
        keep = bisect_right(self.steps, step)
        del self.steps[keep:]
        del self.values[keep:]
        self._means = (1, [])

    def thinned(self, at_most: int) -> tuple[list[int], list[float]]:
        """``(steps, values)`` of at most ``at_most`` points, each the mean of as many neighbours (a power of two) and
        standing at the last of them.

        What is not finite is left out, unless nothing else is among the neighbours; then it stays. Means of whole
        groups are kept: asked again after a few more steps, a series of a million costs what those few do.
        """
        size = 1
        while size * at_most < len(self.values):
            size *= 2
        if size == 1:
            return self.steps.tolist(), self.values.tolist()
        kept_size, means = self._means
        if kept_size != size:
            means = []
        whole = len(self.values) // size
        means += [_mean(self.values[place * size : (place + 1) * size]) for place in range(len(means), whole)]
        self._means = (size, means)
        rest = self.values[whole * size :]
        ends = self.steps[size - 1 : whole * size : size].tolist()
        return (ends + [self.steps[-1]], [*means, _mean(rest)]) if rest else (ends, means[:])


def _mean(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else values[0]


@dataclass
class StageState:
    index: int
    method: str
    steps_total: int
    status: str = "waiting"
    """waiting, running, done or failed."""
    phase: str = ""
    phase_detail: str = ""
    phase_done: float = 0
    phase_total: float = 0
    phase_unit: str = ""
    steps_done: int = 0
    attempts: int = 0
    passed: bool | None = None
    reason: str = ""
    started: float | None = None
    ended: float | None = None
    series: dict[str, Series] = field(default_factory=dict)
    metrics: dict[str, dict[str, MetricEvent]] = field(default_factory=dict)
    """Name -> when (before, during, after) -> the latest such event."""
    gates: dict[str, GateEvent] = field(default_factory=dict)
    """The latest decision of each gate."""
    samples: list[SampleEvent] = field(default_factory=list)
    checkpoints: list[CheckpointEvent] = field(default_factory=list)

    def latest(self, name: str) -> MetricEvent | None:
        """The most recent measurement called ``name``."""
        found = self.metrics.get(name, {})
        return found.get("after") or found.get("during") or found.get("before")


class RunState:
    """``apply`` takes events in order. No clock, no files: two readers of one log agree."""

    def __init__(self) -> None:
        self.name = ""
        self.status = "created"
        self.reason = ""
        self.code: int | None = None
        self.attempt = 0
        self.created: float | None = None
        self.started: float | None = None
        self.ended: float | None = None
        self.last_event: float = 0.0
        self.last_seq = 0
        self.stages: list[StageState] = []
        self.alerts: list[AlertEvent] = []
        self.exits: list[ExitEvent] = []
        self.detail: dict[str, Any] = {}
        self._apply: dict[type, Callable[[Any], None]] = {
            RunEvent: self._run, StageEvent: self._stage,
            PhaseEvent: self._phase, MetricEvent: self._metric, SampleEvent: self._sample, AlertEvent: self._alert,
            CheckpointEvent: self._checkpoint, GateEvent: self._gate, ExitEvent: self._exit,
            OutlookEvent: lambda _: None,  # of the moment, and for clocks (tui/eta.py)
        }  # fmt: skip

    def apply_all(self, events: Iterable[AnyEvent]) -> RunState:
        handlers = self._apply
        event = None
        steps: list[StepEvent] = []  # consecutive ones are taken together: a long log is nearly nothing else
        with no_collection():
            for event in events:
                kind = type(event)
                if kind is StepEvent:
                    steps.append(event)  # type: ignore[arg-type]
                elif kind is not HeartbeatEvent:
                    if steps:
                        self._steps(steps)
                        steps = []
                    handlers[kind](event)
            if steps:
                self._steps(steps)
        if event is not None:
            self._seen(event)
        return self

    def apply(self, event: AnyEvent) -> RunState:
        return self.apply_all([event])

    def _seen(self, event: AnyEvent) -> None:
        self.last_event = event.time
        self.last_seq = event.seq
        self.attempt = max(self.attempt, event.attempt)

    # ---- one kind each -------------------------------------------------------------------------------------------

    def _steps(self, events: list[StepEvent]) -> None:
        """Runs of steps of one stage with the same gauges go into their series column by column."""
        if not self._alike(events):
            for _, run in groupby(events, key=_stage_and_gauges):
                self._alike(list(run), surely=True)

    def _alike(self, events: list[StepEvent], surely: bool = False) -> bool:
        """Take steps of one stage with the same gauges; False, and nothing is taken, where they are not that, or where
        a value is a word (nan, inf). ``surely``: they are, and words are read."""
        values = [event.values for event in events]
        names = tuple(values[0])
        if not surely and ({*map(len, values)} != {len(names)} or len({event.stage for event in events}) != 1):
            return False
        columns = []
        try:
            for name in names:
                column = map(itemgetter(name), values)
                columns.append(array("d", [*map(float, column)] if surely else [*column]))
        except (KeyError, TypeError):
            if surely:
                raise
            return False
        last = events[-1]
        stage = self.stages[last.stage or 0]
        stage.steps_done, stage.steps_total = last.step, last.total
        steps = array("q", [event.step for event in events])
        for name, found in zip(names, columns, strict=True):
            series = stage.series.get(name)
            if series is None:
                series = stage.series[name] = Series()
            series.steps.extend(steps)
            series.values.extend(found)
        return True

    def _run(self, event: RunEvent) -> None:
        self.status, self.reason, self.code = event.state, event.reason, event.code
        if event.state == "created":
            self.created = event.time
            self.name = str(event.detail.get("name", ""))
            self.detail = event.detail
            self.stages = [
                StageState(index, str(stage["method"]), int(stage["steps"]))
                for index, stage in enumerate(event.detail.get("stages", []))
            ]
        elif event.state == "running":
            self.started = self.started or event.time
            self.ended = None
        elif event.state != "queued":
            self.ended = event.time

    def _stage(self, event: StageEvent) -> None:
        stage = self.stages[event.stage or 0]
        if event.state == "started":
            stage.status, stage.reason = "running", ""
            stage.attempts += 1
            stage.started = stage.started or event.time
            stage.steps_total = event.steps_total or stage.steps_total
        else:
            stage.status, stage.reason, stage.passed = event.state, event.reason, event.passed
            stage.ended = event.time
            stage.phase = ""

    def _phase(self, event: PhaseEvent) -> None:
        if event.stage is None:
            self.detail = {**self.detail, "phase": event}
            return
        stage = self.stages[event.stage]
        stage.phase, stage.phase_detail, stage.phase_unit = event.phase, event.detail, event.unit
        stage.phase_done, stage.phase_total = event.done, event.total

    def _metric(self, event: MetricEvent) -> None:
        self.stages[event.stage or 0].metrics.setdefault(event.name, {})[event.when] = event

    def _sample(self, event: SampleEvent) -> None:
        samples = self.stages[event.stage or 0].samples
        samples.append(event)
        if len(samples) > KEPT_SAMPLES:
            del samples[_dispensable(samples)]

    def _alert(self, event: AlertEvent) -> None:
        self.alerts.append(event)
        del self.alerts[:-KEPT_ALERTS]

    def _checkpoint(self, event: CheckpointEvent) -> None:
        stage = self.stages[event.stage or 0]
        if event.action == "restored":
            self._go_back(stage, event.step)
        stage.checkpoints.append(event)
        del stage.checkpoints[:-KEPT_SAMPLES]

    def _go_back(self, stage: StageState, step: int) -> None:
        """A new attempt restored the checkpoint of ``step``: what came later is superseded."""
        stage.steps_done = step
        for series in stage.series.values():
            series.cut(step)
        stage.samples = [sample for sample in stage.samples if sample.step <= step]
        stage.gates = {name: gate for name, gate in stage.gates.items() if gate.step <= step}
        for found in stage.metrics.values():
            for when in [when for when, metric in found.items() if when != "before" and metric.step > step]:
                del found[when]
        stage.metrics = {name: found for name, found in stage.metrics.items() if found}

    def _gate(self, event: GateEvent) -> None:
        self.stages[event.stage or 0].gates[event.name] = event

    def _exit(self, event: ExitEvent) -> None:
        self.exits.append(event)
        del self.exits[:-KEPT_ALERTS]

    # ---- for others ----------------------------------------------------------------------------------------------

    @property
    def current(self) -> StageState | None:
        """The stage that runs, or the first that waits; None when all are done."""
        return next((stage for stage in self.stages if stage.status in ("running", "waiting", "failed")), None)

    def stages_to_json(self) -> list[dict[str, Any]]:
        return [_stage_to_json(stage) for stage in self.stages]


def _dispensable(samples: list[SampleEvent]) -> int:
    """The oldest sample of training, else the oldest but the first answer to its prompt, to which later ones compare."""
    seen: set[str] = set()
    again = None
    for place, sample in enumerate(samples):
        if sample.label == "training":
            return place
        if again is None and sample.prompt in seen:
            again = place
        seen.add(sample.prompt)
    return again or 0


def _stage_and_gauges(event: StepEvent) -> tuple[int, tuple[str, ...]]:
    return event.stage or 0, tuple(event.values)


def _stage_to_json(stage: StageState) -> dict[str, Any]:
    metrics: dict[str, dict[str, Any]] = {
        name: {"last": series.values[-1], "n": len(series.values)}
        for name, series in stage.series.items()
        if series.values
    }
    for name, found in stage.metrics.items():
        latest = stage.latest(name)
        if latest is not None:
            before = found.get("before")
            metrics[name] = {
                "last": float(latest.value),
                "n": latest.n,
                "low": None if latest.low is None else float(latest.low),
                "high": None if latest.high is None else float(latest.high),
                "before": None if before is None else float(before.value),
            }
    gates = [
        {
            "name": gate.name,
            "value": float(gate.value),
            "limit": {"min": gate.min, "max": gate.max},
            "passed": gate.passed,
            "n": gate.n,
        }
        for gate in stage.gates.values()
    ]
    return {
        "index": stage.index,
        "method": stage.method,
        "status": stage.status,
        "phase": stage.phase,
        "steps_done": stage.steps_done,
        "steps_total": stage.steps_total,
        "attempts": stage.attempts,
        "passed": stage.passed,
        "reason": stage.reason,
        "metrics": metrics,
        "gates": gates,
        "started": stage.started,
        "ended": stage.ended,
    }
