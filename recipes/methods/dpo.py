"""DPO: direct preference optimization."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recipes.methods.card import Card, Data, GateSpec, Memory, Time
from recipes.schema import Stage as TrainingStage

CARD = Card(
    name="dpo",
    title="DPO (Direct Preference Optimization)",
    purpose="Align to human preferences, with memory to spare",
    strengths=(
        "No reward model needed (simpler than RLHF)",
        "Direct preference optimization",
        "Stable training (no RL instability)",
        "Strong alignment results",
        "Well-studied (many papers, implementations)",
    ),
    weaknesses=(
        "Requires reference model (2x memory)",
        "Needs high-quality preference pairs (gap ≥0.15)",
        "Can drift from base model (monitor KL ≤0.1)",
        "Preference data labeling expensive",
        "May sacrifice capability for alignment",
    ),
    best_for=("Behavior change", "style alignment", "human preference alignment"),
    requires_reference_model=True,
    requires_reward_model=False,
    requires_verification=False,
    inference_overhead="None",
    reversible=False,
    composable=False,
    time=Time("Medium", 2.0, 4.0, "Reference model forward pass overhead"),
    data=Data("preference pairs", "High", 1000, 5000, "Preference gap ≥0.15"),
    memory=Memory(True, "Reference + gradients", 4.0),
    metrics=("Preference gap", "KL divergence"),
    targets=("Gap ≥0.15", "KL ≤0.1"),
    gates={
        "preference_gap": GateSpec("held-out margin between chosen and rejected, beta 0.1", minimum=0.15),
        "kl": GateSpec(
            "divergence from the stage's start on the policy's own completions, nats per token", maximum=0.1
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
    capability=4,
)


class Stage(TrainingStage):
    """A DPO stage; the reference is the adapter as the stage found it."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-5
    beta: Annotated[float, Field(gt=0, le=10)] = 0.1
    sft_weight: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Weight of the chosen completion's likelihood beside the preference loss (Pang et al. 2024, Iterative Reasoning
    Preference Optimization, eq. 1): above 0 it raises what is chosen, where DPO alone may only lower what is rejected."""
    judge: str | None = None
    """YAML file with the regular expressions `preferred` and `rejected`; without one the preferred share is not gated."""
