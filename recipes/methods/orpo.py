"""ORPO: odds-ratio preference optimization."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recipes.methods.card import Card, Data, GateSpec, Memory, Time
from recipes.schema import Stage as TrainingStage

CARD = Card(
    name="orpo",
    title="ORPO (Odds Ratio Preference Optimization)",
    purpose="Align to human preferences when memory is tight",
    strengths=(
        "No reference model needed (lower memory)",
        "Simpler than DPO (fewer hyperparameters)",
        "Faster training (no reference forward pass)",
        "Lower compute cost",
        "Still uses preference data",
    ),
    weaknesses=(
        "Less stable than DPO (higher variance)",
        "May have higher distribution shift",
        "Experimental in some backends",
        "Fewer papers/implementations (newer method)",
        "May need more data for same quality",
    ),
    best_for=(
        "Budget-constrained preference alignment",
        "simple behavior change",
    ),
    requires_reference_model=False,
    requires_reward_model=False,
    requires_verification=False,
    inference_overhead="None",
    reversible=False,
    composable=False,
    time=Time("Medium", 1.0, 2.0, "Faster than DPO (no reference)"),
    data=Data("preference pairs", "High", 1000, 5000, "Preference gap ≥0.15"),
    memory=Memory(False, "Gradients only", 2.5),
    metrics=(
        "Preference gap",
        "KL divergence",
    ),
    targets=(
        "Gap ≥0.15",
        "KL ≤0.15",
    ),
    gates={
        "preference_gap": GateSpec("held-out margin between chosen and rejected, beta 0.1", minimum=0.15),
        "kl": GateSpec(
            "divergence from the stage's start on the policy's own completions, nats per token", maximum=0.15
        ),
        "preferred_share_gain": GateSpec(
            "more sampled completions show the preferred behaviour (lower 95 % bound)", minimum=0.0
        ),
        "broken_share": GateSpec("sampled completions that are broken", maximum=0.05),
        "length_ratio": GateSpec("completion length against the stage's start", minimum=0.75, maximum=1.25),
        "preferred_share": GateSpec("share of preferred completions itself", default=False),
        "preference_accuracy": GateSpec("held-out pairs ranked right", default=False),
        "retention": GateSpec("what is left of the capability suite, mean over its tasks", default=False),
        "retention_worst": GateSpec("what is left of the suite's worst task", default=False),
        "kl_base": GateSpec("divergence from the recipe's base", default=False),
    },
    complexity=2,
    capability=3,
)


class Stage(TrainingStage):
    """An ORPO stage."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-5
    odds_weight: Annotated[float, Field(gt=0, le=10)] = 0.1
    """Weight of the odds-ratio term beside the likelihood of the chosen (Hong et al. 2024, eq. 6: lambda)."""
    judge: str | None = None
    """YAML file with the regular expressions `preferred` and `rejected`; without one the preferred share is not gated."""
