"""The events of a run in words, one line each: for the plain monitor and for the app's log."""

from __future__ import annotations

from engine.report import figure, gate_value, limit_words
from engine.runs.events import (
    AlertEvent,
    AnyEvent,
    CheckpointEvent,
    ExitEvent,
    GateEvent,
    HeartbeatEvent,
    MetricEvent,
    PhaseEvent,
    RunEvent,
    SampleEvent,
    StageEvent,
    StepEvent,
)  # fmt: skip
from engine.runs.state import RunState
from tui.words import passed_sign, warning_sign

HEADLINES = (
    "heldout_loss",
    "accuracy",
    "preference_gap",
    "preferred_share",
    "broken_share",
    "kl",
    "retention",
    "reward",
    "final_correctness",
    "step_correctness",
    "ece",
    "abstention_recall",
    "hallucination_rate",
)
"""Measurements that get a line of their own while watching; all are in `show` and the report."""


def sample_words(sample: SampleEvent) -> str:
    """What a completion was given or labelled: ``reward 1, answer 1``; empty where it was not judged."""
    given = [f"{name} {figure(float(value))}" for name, value in sample.values.items()]
    label = [sample.label] if sample.label and sample.label != "training" else []
    return ", ".join([*label, *given])


def event_words(event: AnyEvent, state: RunState) -> str | None:
    """A line for an event, None for those that are only progress. ``state`` is the reducer's after it."""
    stage = stage_words(event.stage, state)
    match event:
        case RunEvent():
            return None if event.state in ("done", "created") else f"run {event.state} {event.reason}".rstrip()
        case StageEvent(state="started"):
            return f"{stage} started ({event.steps_total} steps)"
        case StageEvent():
            return f"{stage} {event.state} {event.reason}".rstrip()
        case PhaseEvent(done=0) if event.phase != "training":
            return f"{stage} {event.phase}: {event.detail}"
        case MetricEvent() if event.name in HEADLINES and not (event.when == "during" and event.name == "heldout_loss"):
            return f"{stage} {event.when} {event.name} {figure(float(event.value))} (n {event.n})"
        case GateEvent():
            sign = passed_sign(event.passed)
            value = gate_value(event)
            detail = f"; {event.detail}" if event.detail else ""
            return f"{stage} {sign} gate {event.name} {value} ({limit_words(event)}, n {event.n}{detail})"
        case AlertEvent(code="interrupted"):
            return f"{stage} {event.text}"
        case AlertEvent():
            sign = warning_sign() if event.level != "info" else "-"
            return f"{stage} {sign} {event.text}"
        case CheckpointEvent(action="restored"):
            return f"{stage} carries on from the checkpoint of step {event.step}"
        case SampleEvent():
            given = f" [{words}]" if (words := sample_words(event)) else ""
            return f"{stage} step {event.step} sample: {event.prompt} -> {event.completion[:160]}{given}"
        case ExitEvent(signal=int()):
            return f"{stage} process {event.pid} {event.reason}"
        case StepEvent() | HeartbeatEvent() | _:
            return None


def stage_words(index: int | None, state: RunState) -> str:
    """``[1/2 sft]``, or ``[run]`` for what concerns no stage."""
    if index is None or index >= len(state.stages):
        return "[run]"
    return f"[{index + 1}/{len(state.stages)} {state.stages[index].method}]"
