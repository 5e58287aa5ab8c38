"""What a run's report says of a stage: gates with their intervals, forecast against actual, samples before and after."""

from __future__ import annotations

from engine.account import forecast_words, gate_table, metric_table, sample_words
from engine.runs.events import (
    AlertEvent,
    CheckpointEvent,
    GateEvent,
    MetricEvent,
    RunEvent,
    SampleEvent,
    StageEvent,
    StepEvent,
)
from engine.runs.state import RunState

FORECAST = {"memory": {"low_mib": 300.0, "high_mib": 420.0}, "time_s": {"low": 50.0, "high": 200.0, "value": 100.0}}


def state_after(*events):
    created = RunEvent(state="created", detail={"name": "x", "stages": [{"method": "dpo", "steps": 10}]})
    begun = StageEvent(state="started", method="dpo", stage=0, steps_total=10)
    ended = StageEvent(state="done", method="dpo", stage=0, steps_total=10, passed=True)
    state = RunState()
    for place, event in enumerate([created, begun, *events, ended]):
        event.stage, event.time = 0, 1000.0 + 30 * place
        state.apply(event)
    return state


def gate(**changes):
    return GateEvent(
        **{"name": "gap", "value": 0.5, "min": 0.15, "max": None, "passed": True, "n": 40, "step": 10} | changes
    )


def test_a_gate_has_its_interval_also_where_only_the_figure_had_one():
    metric = MetricEvent(name="kl", value=0.05, n=400, step=10, when="after", low=0.04, high=0.06)
    state = state_after(metric, gate(low=0.4, high=0.6), gate(name="kl", min=None, max=0.1, n=400, passed=False))
    table = gate_table(state.stages[0]).splitlines()
    assert table[2] == "| gap | 0.5 | 0.4 to 0.6 | ≥ 0.15 | 40 | passed |"
    assert table[3] == "| kl | 0.5 | 0.04 to 0.06 | ≤ 0.1 | 400 | **failed** |"
    assert "| kl |  | 0.05 | 0.04 to 0.06 | 400 |" in metric_table(state.stages[0])
    assert metric_table(state.stages[0], frozenset({"kl"})) == "" == gate_table(state_after().stages[0])


def test_what_a_resume_has_superseded_is_not_in_the_table():
    """A run that is stopped before it measures again has a report all the same."""
    during = MetricEvent(name="heldout_loss", value=2.0, n=9, step=8, when="during")
    back = CheckpointEvent(action="restored", step=6, path="p")
    assert metric_table(state_after(during, back).stages[0]) == ""


def test_forecast_against_actual_and_nothing_where_nothing_was_said():
    told = AlertEvent(level="info", code="forecast", text="", detail=FORECAST)
    state = state_after(told, StepEvent(step=1, total=10, values={"memory_mib": 390.2}))
    words = forecast_words(state, state.stages[0])
    assert "memory 300 to 420 MiB, took 390 MiB" in words
    assert "time 50 s to 3 min 20 s, 1 min 40 s the likeliest, took 1 min 30 s." in words
    assert forecast_words(state_after(), state_after().stages[0]) == ""


def test_samples_stand_beside_what_the_same_prompt_was_answered_before():
    def sample(step, text):
        return SampleEvent(step=step, prompt="Tell me\nmore.", completion=text, values={}, label="")

    both = sample_words(state_after(sample(0, "cold | one"), sample(10, "warm")).stages[0])
    assert "> **Tell me more.**\n>\n> before: cold \\| one\n>\n> after: warm" in both
    assert "before:" not in sample_words(state_after(sample(10, "warm")).stages[0])
    assert sample_words(state_after().stages[0]) == ""
