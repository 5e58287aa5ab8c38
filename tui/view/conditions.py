"""What asks for attention at this moment, in words with what to do: from the gauges, the clock and the machine."""

from __future__ import annotations

from dataclasses import dataclass

from engine.evaluate.warning_signs import GAUGES, KEPT, warning_signs
from engine.report import duration
from engine.runs.state import RunState, StageState
from tui.view.gauges import limits_of

SILENT_AFTER = 60.0
"""Seconds without an event; a stage that is well has its heartbeat logged every ten."""
NEARLY_FULL = 0.95
HOT = 87.0
"""Degrees Celsius near which consumer GPUs begin to slow down."""
GIB = 2**30


@dataclass(frozen=True)
class Surroundings:
    """What the machine says of the device that a run works on. Sizes in bytes; None where it does not say."""

    device: str = ""
    total: int | None = None
    free: int | None = None
    holder: str = ""
    """Another program that holds memory of it, in words."""
    celsius: float | None = None
    slowed_by: str | None = None


@dataclass(frozen=True)
class Condition:
    code: str
    text: str
    mend: str
    """What to do about it."""


def conditions_of(
    state: RunState, stage: StageState | None, status: str, now: float, around: Surroundings
) -> list[Condition]:
    """Only while the run works: the most pressing first."""
    if status != "running" or stage is None or stage.status != "running":
        return []
    found = [*_silence(state, now), *_machine(around)]
    values = {name: stage.series[name].values[-KEPT:] for name in GAUGES if name in stage.series}
    signs = warning_signs(stage.method, values, limits_of(state, stage, "kl").maximum)
    return found + [Condition(sign.code, sign.text, sign.mend) for sign in signs]


def _silence(state: RunState, now: float) -> list[Condition]:
    silent = now - state.last_event
    if not state.last_event or silent < SILENT_AFTER:
        return []
    text = f"no event for {duration(silent)}"
    mend = "`finetune-tui logs` says what the stage printed last; after 15 min it is ended and started again from its checkpoint"
    return [Condition("no-event", text, mend)]


def _machine(around: Surroundings) -> list[Condition]:
    found = []
    if around.total and around.free is not None and around.free <= (1 - NEARLY_FULL) * around.total:
        used = (around.total - around.free) / GIB
        text = (
            f"memory of {around.device} is within 5 % of its end: {used:.1f} of {around.total / GIB:.1f} GiB are taken"
        )
        others = f"close {around.holder}; " if around.holder else ""
        mend = f"{others}if it runs out, the stage goes on by itself in smaller micro-batches; `batch_size` and `max_length` make it smaller"
        found.append(Condition("memory", text, mend))
    if around.slowed_by:
        heat = f" at {around.celsius:.0f} °C" if around.celsius is not None else ""
        mend = (
            "give it air, or a lower power limit"
            if around.slowed_by == "heat"
            else "look at its power cables and the power supply"
        )
        found.append(Condition("throttled", f"{around.device} is slowed down by {around.slowed_by}{heat}", mend))
    elif around.celsius is not None and around.celsius >= HOT:
        text = f"{around.device} has {around.celsius:.0f} °C"
        found.append(Condition("hot", text, "give it air, or a lower power limit, before it slows down"))
    return found
