"""The end of a stage: its gates decided and told. A gate that nothing measured is a gate that failed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from engine.evaluate.gates import GateResult, Limit
from engine.runs.events import GateEvent
from engine.stages.context import StageContext


def limits_of(gates: Mapping[str, Any]) -> dict[str, Limit]:
    """The limits of a stage's gates, without those that the recipe switched off."""
    return {name: Limit(gate.min, gate.max) for name, gate in gates.items() if gate is not None}


def settle(
    context: StageContext, results: Sequence[GateResult], missing: Mapping[str, str], step: int
) -> tuple[list[GateResult], bool]:
    """``(all results, whether all passed)``, told as events. ``missing``: gate -> why nothing measured it; those fail."""
    limits = limits_of(context.stage.gates)
    settled = [*results, *(_unmeasured(name, limits[name], why) for name, why in missing.items())]
    for result in settled:
        context.channel.emit(gate_event(result, step))
    for name, why in missing.items():
        text = f"the gate `{name}` failed, for nothing measured it: {why}; `gates: {{{name}: null}}` does without it"
        context.alert("warning", "not-gated", text)
    return settled, all(result.passed for result in settled)


def _unmeasured(name: str, limit: Limit, why: str) -> GateResult:
    return GateResult(name, math.nan, limit, False, 0, f"not measured: {why}")


def gate_event(result: GateResult, step: int) -> GateEvent:
    return GateEvent(
        name=result.name,
        value=result.value,
        min=result.limit.minimum,
        max=result.limit.maximum,
        passed=result.passed,
        n=result.n,
        step=step,
        detail=result.detail,
        low=result.low,
        high=result.high,
    )
