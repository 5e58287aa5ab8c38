"""A gauge's series: thinned for a chart, cut when an attempt goes back."""

from __future__ import annotations

import math

import pytest

from engine.runs.events import RunEvent, StepEvent
from engine.runs.state import RunState, Series


def series_of(values: list[float]) -> Series:
    state = RunState().apply(RunEvent(state="created", detail={"stages": [{"method": "sft", "steps": len(values)}]}))
    for step, value in enumerate(values, 1):
        state.apply(StepEvent(stage=0, step=step, total=len(values), values={"loss": value}))
    return state.stages[0].series["loss"]


def test_a_short_series_stays_as_it_is():
    assert series_of([3.0, 2.0, 1.0]).thinned(10) == ([1, 2, 3], [3.0, 2.0, 1.0])


def test_points_are_means_of_neighbours_and_the_last_step_is_always_there():
    steps, values = series_of([float(i) for i in range(1, 12)]).thinned(4)
    assert steps == [4, 8, 11] and values == [2.5, 6.5, 10.0]


def test_asking_again_gives_what_asking_afresh_gives():
    grown = Series()
    for step in range(1, 200):
        grown.steps.append(step)
        grown.values.append(math.sin(step))
        again = grown.thinned(16)
        fresh = series_of([math.sin(i) for i in range(1, step + 1)]).thinned(16)
        assert again == fresh and len(again[0]) == len(again[1]) <= 17


def test_what_is_not_finite_shows_only_where_nothing_else_is():
    _, values = series_of([1.0, math.nan, math.inf, math.inf]).thinned(2)
    assert values == [1.0, math.inf]


def test_going_back_forgets_the_means_too():
    series = series_of([1.0] * 8)
    series.thinned(2)
    series.cut(4)
    series.steps.extend([5, 6, 7, 8])
    series.values.extend([9.0] * 4)
    assert series.thinned(2) == ([4, 8], [pytest.approx(1.0), pytest.approx(9.0)])
