"""The four combined strategies as data: several methods one after the other on one model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One stage of a strategy and what it is there for."""

    method: str
    purpose: str


@dataclass(frozen=True)
class Strategy:
    """Times and memory are the source's, for a 1B model in 4-bit on a consumer GPU (RTX 3090 or M2 Ultra)."""

    name: str
    """Also the name of its recipe in the library."""
    title: str
    steps: tuple[Step, ...]
    hours: tuple[int, int]
    """Lower and upper bound of the whole, in hours."""
    peak_gb: int
    peak_during: str | None
    """The method during which the peak is reached, where the source says so."""
    use_case: str
    goals: tuple[str, ...]
    """Answers to the flowchart's first question that the strategy serves."""


STRATEGIES = (
    Strategy(
        "base-alignment",
        "Base + Alignment",
        (Step("sft", "domain knowledge"), Step("dpo", "align preferences")),
        (2, 4),
        4,
        "dpo",
        "Domain-specific assistant with preferred style",
        ("knowledge", "preferences"),
    ),
    Strategy(
        "verifiable-reasoning",
        "Verifiable Reasoning",
        (
            Step("sft", "instruction following"),
            Step("grpo", "correctness"),
            Step("anti_hallucination", "confidence calibration"),
        ),
        (5, 9),
        3,
        None,
        "Math tutor or code assistant",
        ("verifiable",),
    ),
    Strategy(
        "research-assistant",
        "Research Assistant",
        (
            Step("sft", "base capabilities"),
            Step("rlvr", "multi-step reasoning"),
            Step("calibration", "uncertainty"),
            Step("anti_hallucination", "reduce false confidence"),
        ),
        (10, 15),
        3,
        None,
        "Research assistant with verified reasoning",
        ("verifiable",),
    ),
    Strategy(
        "customizable-assistant",
        "Customizable Assistant",
        (Step("sft", "base"), Step("dpo", "default behavior"), Step("steering", "runtime personas")),
        (3, 5),
        4,
        None,
        "Multi-persona assistant (professional, casual, technical)",
        ("preferences", "runtime-control"),
    ),
)


def strategies_for(goal: str, method: str) -> list[Strategy]:
    """Strategies that serve a goal of the flowchart and contain the method that the branch ended in."""
    return [
        strategy
        for strategy in STRATEGIES
        if goal in strategy.goals and method in (step.method for step in strategy.steps)
    ]
