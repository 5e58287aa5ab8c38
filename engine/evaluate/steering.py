"""What steering is judged by: how far it goes compared with a prompt, what else it moves, and who goes the wrong way."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.backends.interface import Completion, Divergence
from engine.evaluate.measurement import Measurement, rate
from engine.evaluate.retention import ABLE
from engine.evaluate.statistics import newcombe
from engine.verify.judge import Judge

STEERED = 20
"""First tokens of a completion over which a vector's KL is taken."""

LEAST_SHIFT = 0.2
"""The least shift that a prompt is taken to achieve when a vector is compared with it."""


def shown(judge: Judge, completions: Sequence[Completion], name: str) -> Measurement:
    """Share of completions that show the persona; how many are broken is in the detail. n in completions."""
    verdicts = judge.verdicts([one.text for one in completions], [one.finished for one in completions])
    broken = verdicts.count("broken")
    return rate(name, verdicts.count("preferred"), len(verdicts), unit="completions", broken=broken / len(verdicts))


def tail(measured: Sequence[Divergence], window: int | None) -> float:
    """95th percentile of the KL over the steered ones of the first tokens, nats."""
    most = STEERED if window is None else min(window, STEERED)
    values = sorted(value for one in measured for value in one.each[:most])
    return values[min(len(values) - 1, math.ceil(0.95 * len(values)) - 1)] if values else 0.0


def share_of_prompt(alone: float, told: float, steered: float) -> float:
    """Shift by the vector over the shift by the prompt. A prompt that shifts less than LEAST_SHIFT counts as much, so
    that doing nothing is no strength where the prompt does nothing either."""
    return (steered - alone) / max(told - alone, LEAST_SHIFT)


def strength_of(name: str, alone: Measurement, told: Measurement, steered: Measurement) -> Measurement:
    """``share_of_prompt`` with the interval of the vector's shift, the prompt's taken as it is."""
    low, high = newcombe((alone.detail["successes"], alone.n), (steered.detail["successes"], steered.n))
    scale = max(told.value - alone.value, LEAST_SHIFT)
    says = f"{alone.value:.1%} alone, {told.value:.1%} by prompt, {steered.value:.1%} steered"
    value = share_of_prompt(alone.value, told.value, steered.value)
    return Measurement(name, value, steered.n, low / scale, high / scale, {"says": says})


def side_effects(name: str, before: Sequence[Measurement], after: Sequence[Measurement]) -> Measurement | None:
    """Largest relative drop over the suite's tasks with at least half right before; n in rows of that task."""
    later = {one.name: one for one in after}
    drops = {
        one.name.removeprefix("suite/"): max(0.0, 1.0 - later[one.name].value / one.value)
        for one in before
        if one.name.startswith("suite/") and one.value >= ABLE and one.name in later
    }
    if not drops:
        return None
    worst = max(drops, key=lambda task: drops[task])
    says = ", ".join(f"{task} {drop:.1%}" for task, drop in drops.items())
    return Measurement(name, drops[worst], later[f"suite/{worst}"].n, detail={"says": says, "task": worst})


def wrong_way(name: str, before: Sequence[float], after: Sequence[float]) -> Measurement:
    """Share of held-out pairs whose log-odds of the positive completion fell, n in pairs."""
    return rate(name, sum(b > a for b, a in zip(before, after, strict=True)), len(before), unit="pairs")
