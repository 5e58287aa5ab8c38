"""The form of a method's card: everything that the method comparison says of it, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class GateSpec:
    """A default gate. ``minimum`` and ``maximum`` are inclusive; ``meaning`` is shown beside the figure."""

    meaning: str
    minimum: float | None = None
    maximum: float | None = None
    default: bool = True
    """False: the gate exists and can be set in a recipe, but is off unless it is."""


@dataclass(frozen=True)
class Data:
    kind: str
    """What a row is: conversations, preference pairs, prompts with answers, contrast pairs, prompts, nothing."""
    need: str
    """Low, Medium, High or None, as in the feature comparison."""
    minimum: int
    recommended: int
    quality: str


@dataclass(frozen=True)
class Memory:
    """For a model of 1B parameters in 4-bit on consumer hardware."""

    reference_model: bool
    extra: str
    total_gb_1b_4bit: float


@dataclass(frozen=True)
class Time:
    """For a 1B model on a consumer GPU (RTX 3090 or M2 Ultra), 1000-5000 examples. Hours."""

    word: str
    low_hours: float
    high_hours: float
    notes: str


@dataclass(frozen=True)
class Card:
    name: str
    title: str
    purpose: str
    strengths: tuple[str, ...]
    weaknesses: tuple[str, ...]
    best_for: tuple[str, ...]
    requires_reference_model: bool
    requires_reward_model: bool
    requires_verification: bool
    inference_overhead: str
    reversible: bool
    composable: bool
    time: Time
    data: Data
    memory: Memory
    metrics: tuple[str, ...]
    targets: tuple[str, ...]
    gates: dict[str, GateSpec] = field(default_factory=dict)
    backends: str = "every backend"
    complexity: int = 0
    """Place in the complexity-capability chart, 0 (low) to 5 (high), as the chart's columns and rows stand."""
    capability: int = 0
    from_strategies: bool = False
    """True for the two methods that only the combined strategies name."""
