"""What the plain monitor prints from a log, and how its ETA is made."""

from __future__ import annotations

import pytest

from engine.runs.events import PhaseEvent, RunEvent, StageEvent, StepEvent
from engine.runs.state import RunState
from tui.eta import Eta

CREATED = RunEvent(
    time=0,
    state="created",
    detail={"name": "x", "stages": [{"method": "sft", "steps": 100}, {"method": "dpo", "steps": 50}]},
)


def fed(events):
    state, eta = RunState(), Eta()
    for event in events:
        state.apply(event)
        eta.apply(event)
    return state, eta


def course(last):
    return [
        CREATED,
        StageEvent(time=10, stage=0, state="started", method="sft", steps_total=100),
        PhaseEvent(time=30, stage=0, phase="training"),
        *(StepEvent(time=30 + 2 * i, stage=0, step=i, total=100, values={"loss": 1.0}) for i in range(1, last + 1)),
    ]


def test_nothing_is_promised_before_anything_is_known():
    state, eta = fed(course(1))
    assert eta.left(state, 33) == (None, None)


def test_steps_go_at_their_recent_pace_and_the_evaluation_takes_as_long_as_before():
    state, eta = fed(course(40))
    stage, run = eta.left(state, now=110)
    assert stage == pytest.approx(60 * 2 + 20)
    assert run == pytest.approx(stage + 50 * 2 + 2 * 20)
    later, _ = eta.left(state, now=111)
    assert later == pytest.approx(stage - 1)


def test_after_the_last_step_only_the_evaluation_is_left():
    state, eta = fed(course(100))
    stage, _ = eta.left(state, now=235)
    assert stage == pytest.approx(15)


def test_a_done_run_has_nothing_left():
    state, eta = fed([*course(100), StageEvent(time=300, stage=0, state="done", method="sft", passed=True)])
    assert eta.left(state, now=301) == (None, None)
