"""Gates: a measured figure against its limit. A figure that is missing or not a number passes nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from engine.evaluate.measurement import Measurement
from engine.evaluate.statistics import newcombe


@dataclass(frozen=True)
class Limit:
    minimum: float | None
    maximum: float | None

    def allows(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        return (self.minimum is None or value >= self.minimum) and (self.maximum is None or value <= self.maximum)


@dataclass(frozen=True)
class GateResult:
    name: str
    value: float
    limit: Limit
    passed: bool
    n: int
    detail: str
    low: float | None = None
    high: float | None = None
    """95 % interval of the value, where it has one."""


def decide(
    limits: Mapping[str, Limit], measured: Mapping[str, Measurement], step: int | None = None
) -> tuple[list[GateResult], list[str]]:
    """``(results, not measured)``: one result per gate whose figure was measured, and the names of the others.

    A rate's gate looks at the rate itself; gates on a change (``…_gain``) look at the lower bound of the change, and
    need it strictly above their minimum, so that no change at all can never pass.
    """
    results, missing = [], []
    for name, limit in limits.items():
        figure = measured.get(name)
        if figure is None:
            missing.append(name)
            continue
        passed = limit.allows(figure.value)
        if name.endswith("_gain") and limit.minimum is not None:
            passed = passed and figure.value > limit.minimum
        says = str(figure.detail.get("says", ""))
        results.append(GateResult(name, figure.value, limit, passed, figure.n, says, figure.low, figure.high))
    return results, missing


def gain(name: str, before: Measurement, after: Measurement) -> Measurement:
    """Lower 95 % bound of the change of a rate (Newcombe), named ``<name>_gain``; n is the smaller of the two."""
    low, high = newcombe((before.detail["successes"], before.n), (after.detail["successes"], after.n))
    says = f"{before.value:.1%} -> {after.value:.1%}, 95 % interval of the change {low:+.1%} to {high:+.1%}"
    return Measurement(f"{name}_gain", low, min(before.n, after.n), low, high, {"says": says})
