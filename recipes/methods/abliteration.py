"""Abliteration: remove refusals by taking their direction out of the activations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from recipes.methods.card import Card, Data, GateSpec, Memory, Time
from recipes.schema import Count, EditStage, Share, Strict

CARD = Card(
    name="abliteration",
    title="Abliteration",
    purpose="Remove safety constraints (use responsibly)",
    strengths=(
        "Directly removes refusal behaviors",
        "No training data needed",
        "Fast (inference-time or single epoch)",
        "Simple implementation",
        "Reversible (keep original model)",
    ),
    weaknesses=(
        "Safety concerns (removes guardrails)",
        "May remove beneficial constraints",
        "Can affect model quality unpredictably",
        "Limited research/validation",
        "Ethical considerations",
    ),
    best_for=(
        "Research on constraints",
        "uncensored models (use responsibly)",
    ),
    requires_reference_model=False,
    requires_reward_model=False,
    requires_verification=False,
    inference_overhead="None",
    reversible=False,
    composable=False,
    time=Time("Fast", 0.083, 0.167, "Single epoch or inference-time"),
    data=Data("none (prompts for extraction are built in)", "None", 0, 0, "None (no data needed)"),
    memory=Memory(False, "Original model", 2.0),
    metrics=(
        "Refusal rate",
        "quality retention",
    ),
    targets=(
        "Refusals <5%",
        "quality >90%",
    ),
    gates={
        "refusal_rate": GateSpec("prompts not complied with, Wilson 95 % upper bound", maximum=0.05),
        "retention_worst": GateSpec("what is left of the suite's worst task", minimum=0.9),
        "retention": GateSpec("what is left of the capability suite, mean over its tasks", default=False),
        "kl": GateSpec("divergence from the stage's start on harmless prompts, nats per token", default=False),
        "perplexity_ratio": GateSpec(
            "perplexity of the start's own harmless answers, after over before", default=False
        ),
    },
    complexity=1,
    capability=1,
)

NOTICE = (
    "your word that you use this responsibly: abliteration takes a model's refusals away, and with them a safeguard "
    "against harm. What the model then says is yours to answer for: check that its licence and your law allow it, keep "
    "it from people it could hurt, and do not offer it to the public as it is. If you agree, add this line to the stage: "
    "`confirm_responsible_use: true`"
)


class PromptFiles(Strict):
    """Three disjoint sets of prompts; those that ship with the product where one is left out."""

    extraction: str | None = None
    """Directions are read off these."""
    search: str | None = None
    """Trials are compared on these."""
    test: str | None = None
    """Touched once, after the search; 400 or more for a refusal rate under 5 % to be shown."""


class Stage(EditStage):
    """An abliteration stage. Its steps are the trials of the search."""

    confirm_responsible_use: Annotated[bool, Field(validate_default=True)] = False
    steps: Count = 60
    harmful: PromptFiles = PromptFiles()
    harmless: PromptFiles = PromptFiles()
    judge: str | None = None
    """YAML file with the regular expressions `comply` and `refuse`, for replies of a known form; without one the
    markers and rules of engine/verify/refusal.py decide alone."""
    strength: Share = 1.0
    """How much of the edit found is applied: 0 is the model as it was."""
    forms: Annotated[list[Literal["plain", "norm"]], Field(min_length=1, max_length=2)] = ["plain", "norm"]
    """Forms of the edit that the search may choose: plain projection, or the one that keeps each row's norm."""
    positions: Annotated[int, Field(ge=1, le=16)] = 4
    """Last prompt tokens at which directions are extracted."""
    orthogonal: bool = False
    """Take out of each direction what lies along the harmless mean."""
    depth_from: Share = 0.4
    depth_to: Share = 0.9
    """Between which fractions of the depth the direction's layer is searched."""
    kl_limit: Annotated[float, Field(gt=0)] = 0.5
    """A trial whose KL on harmless prompts exceeds this is dropped before any refusal is counted."""
    kl_tokens: Count = 32
    """Tokens of each harmless answer over which a trial's KL is taken."""
    search_prompts: Count = 100
    """Prompts of each search set that a trial is measured on."""
    pick: Annotated[int, Field(ge=0)] | None = None
    """Trial of the Pareto front to apply; the default is the lowest KL among those that hardly refuse."""

    @field_validator("confirm_responsible_use")
    @classmethod
    def _confirmed(cls, value: bool) -> bool:
        if not value:
            raise PydanticCustomError("responsible_use", NOTICE)  # type: ignore[arg-type]
        return value

    @field_validator("depth_to")
    @classmethod
    def _ordered(cls, value: float, info: object) -> float:
        low = getattr(info, "data", {}).get("depth_from", 0.0)
        if value < low:
            raise PydanticCustomError("depth_order", f"at least `depth_from`, {low}")  # type: ignore[arg-type]
        return value
