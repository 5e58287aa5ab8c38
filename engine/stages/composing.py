"""Vectors that act together: the factor of each in what a steering stage hands on, and what they do jointly."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

from engine.stages.context import StageContext

OPPOSED = -0.5
"""Cosine below which two vectors of a composition are said to undo each other."""
ROUNDS = 9
"""Bisections of the common scale."""

Candidate = dict[str, Any]


def composed(
    context: StageContext, bench: Any, picked: dict[str, Candidate], joint_kl: Callable[[list[str]], float]
) -> dict[str, float]:
    """Factor of each persona's vector in what the stage hands on, within the joint KL budget.

    ``joint_kl`` measures what acts on the named personas' prompts, nats (95th percentile over steered tokens). Warns
    of two that undo each other, and says by how much all were scaled down for the budget.
    """
    stage, names = context.stage, list(picked)
    factors = stage.factors
    acting = [name for name in names if factors[name]]
    for first, second in combinations(acting, 2):
        angle = bench.cosine(picked[first], picked[second]) * (1 if factors[first] * factors[second] > 0 else -1)
        if angle < OPPOSED:
            text = f"{first} and {second} undo each other in the composition (cosine {angle:.2f})"
            context.alert("warning", "conflict", text)
    if stage.kl_budget is None or not acting:
        return factors

    def joint(scale: float) -> float:
        bench.apply([picked[name] for name in acting], [scale * factors[name] for name in acting])
        return joint_kl(acting)

    if joint(1.0) <= stage.kl_budget:
        return factors
    low, high = 0.0, 1.0
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if joint(middle) <= stage.kl_budget else (low, middle)
    text = f"the composition is scaled to {low:.2f} of its strengths to keep the joint KL within {stage.kl_budget:g}"
    context.alert("info", "scaled", text)
    return {name: low * factor for name, factor in factors.items()}
