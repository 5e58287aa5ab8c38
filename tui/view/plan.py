"""Forecast against actual: what a run's stages were said to need, and what they took. From the event log alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from engine.runs.events import AlertEvent
from engine.runs.state import RunState, StageState

RECENT = 1000
BASES = {
    "rates": "from peak rates", "other models": "from other models", "similar runs": "from similar runs",
    "same stage": "from the same stage",
}  # fmt: skip


@dataclass(frozen=True)
class Band:
    """A forecast and what came of it; None where nothing is known (yet)."""

    low: float | None = None
    high: float | None = None
    actual: float | None = None

    @property
    def word(self) -> str:
        """``as forecast``, or by how much it is over or under; empty when there is nothing to compare."""
        if self.low is None or self.high is None or self.actual is None:
            return ""
        if self.actual > self.high:
            return f"{self.actual / self.high - 1:.0%} over"
        return f"{1 - self.actual / self.low:.0%} under" if self.actual < self.low else "as forecast"


@dataclass(frozen=True)
class Planned:
    index: int
    method: str
    memory: Band
    """MiB, the stage's peak."""
    seconds: Band
    """The whole stage; while it runs ``actual`` is what has passed and ``expected`` what it will be."""
    expected: float | None
    basis: str
    """What the time's forecast is from."""
    note: str = ""


def planned_of(state: RunState, now: float, left_stage: float | None) -> list[Planned]:
    return [_planned(state, stage, now, left_stage) for stage in state.stages]


def _planned(state: RunState, stage: StageState, now: float, left: float | None) -> Planned:
    told = _told(state.alerts, stage.index)
    memory, time = told.get("memory") or {}, told.get("time_s") or {}
    series = stage.series.get("memory_mib")
    # The gauge is the attempt's peak so far; of a million steps the last ones say it.
    recent = series.values[-RECENT:] if series else ()
    peak = max((value for value in recent if math.isfinite(value)), default=None)
    passed = (stage.ended or now) - stage.started if stage.started else None
    running = stage.status == "running" and passed is not None
    return Planned(
        stage.index,
        stage.method,
        Band(memory.get("low_mib"), memory.get("high_mib"), peak),
        Band(time.get("low"), time.get("high"), passed),
        passed + left if running and passed is not None and left is not None else None,
        BASES.get(str(time.get("basis")), ""),
        f"{stage.attempts} attempts, pauses included" if stage.attempts > 1 else "",
    )


def _told(alerts: list[AlertEvent], index: int) -> dict[str, Any]:
    """The forecast that the stage wrote into the log; older runs have only that of their launch probe."""
    for alert in alerts:
        if alert.stage == index and alert.code == "forecast":
            return alert.detail
    for alert in alerts:
        if alert.stage == index and alert.code == "launch-probe" and alert.detail.get("forecast"):
            return {"memory": alert.detail["forecast"]}
    return {}
