"""What the plain monitor prints from a log, and how its ETA is made."""

from __future__ import annotations

import pytest

from engine.runs.events import AlertEvent, CheckpointEvent, OutlookEvent, PhaseEvent, RunEvent, StageEvent, StepEvent
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


def foretold(last):
    """A stage whose work around its steps was forecast, takes twice as long as forecast, and evaluates every 25 steps."""
    around = {"before": 10.0, "during": 30.0, "after": 25.0}
    events = [
        CREATED,
        StageEvent(time=10, stage=0, state="started", method="sft", steps_total=100),
        AlertEvent(time=11, stage=0, level="info", code="forecast", text="", detail={"time_s": {"around": around}}),
        PhaseEvent(time=30, stage=0, phase="training"),
    ]
    for i in range(1, last + 1):
        at = 30 + 2 * i + 15 * ((i - 1) // 25)
        events.append(StepEvent(time=at, stage=0, step=i, total=100, values={"loss": 1.0, "seconds": 2.0}))
    return events


def test_evaluations_between_and_after_the_steps_are_counted_from_their_forecast_and_then_as_measured():
    """Each of three evaluations takes 15 s and the last one 50: 20 of 100 steps leave 80 x 2 + 3 x 15 (foretold: 3 x 20)."""
    state, eta = fed(foretold(20))
    stage, _ = eta.left(state, now=70)
    assert stage == pytest.approx(80 * 2 + 80 / 100 * 60 + 50)
    state, eta = fed(foretold(51))
    stage, _ = eta.left(state, now=30 + 2 * 51 + 30)
    assert stage == pytest.approx(49 * (2 + 30 / 51) + 50)
    real = 49 * 2 + 15 + 50
    assert stage == pytest.approx(real, rel=0.1)


def test_what_a_stage_says_of_itself_counts_more_than_what_was_forecast():
    told = OutlookEvent(time=30, stage=0, around={"during": 45.0, "after": 50.0})
    state, eta = fed([*foretold(0), told, *foretold(20)[4:]])
    stage, _ = eta.left(state, now=70)
    assert stage == pytest.approx(80 * 2 + 80 / 100 * 45 + 50)


def test_a_later_attempt_remembers_what_the_first_took_before_its_steps():
    events = foretold(20)
    again = [
        StageEvent(time=200, stage=0, state="started", method="sft", steps_total=100),
        PhaseEvent(time=203, stage=0, phase="training"),
        CheckpointEvent(time=203, stage=0, action="restored", step=20, path="checkpoints/20"),
        *(
            StepEvent(time=203 + 2 * i, stage=0, step=20 + i, total=100, values={"loss": 1.0, "seconds": 2.0})
            for i in range(1, 4)
        ),
    ]
    state, eta = fed([*events, *again])
    stage, _ = eta.left(state, now=209)
    assert stage == pytest.approx(77 * 2 + 77 / 100 * 60 + 50)
    further = [
        StepEvent(time=203 + 2 * i, stage=0, step=20 + i, total=100, values={"loss": 1.0, "seconds": 1.5})
        for i in range(1, 11)
    ]
    state, eta = fed([*events, *again[:3], *further])  # a quarter is done: half a second a step was seen beside them
    stage, _ = eta.left(state, now=223)
    assert stage == pytest.approx(70 * 2 + 50)


def test_after_the_last_step_only_the_evaluation_is_left():
    state, eta = fed(course(100))
    stage, _ = eta.left(state, now=235)
    assert stage == pytest.approx(15)


def test_a_done_run_has_nothing_left():
    state, eta = fed([*course(100), StageEvent(time=300, stage=0, state="done", method="sft", passed=True)])
    assert eta.left(state, now=301) == (None, None)
