"""CPO: conservative policy optimization (not the contrastive one that TRL calls CPO)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recipes.methods.card import Card, Data, GateSpec, Memory, Time
from recipes.schema import Count, Share, Strict
from recipes.schema import Stage as TrainingStage

CARD = Card(
    name="cpo",
    title="CPO (Conservative Policy Optimization)",
    purpose="Align while losing as little capability as possible",
    strengths=(
        "Lower distribution shift than DPO",
        "Preserves base capabilities better",
        "More conservative alignment (safer)",
        "Good for safety-critical applications",
        "Reduces catastrophic forgetting",
    ),
    weaknesses=(
        "Slower convergence than DPO",
        "May need more data for same alignment",
        "Limited backend support (PyTorch, Cloud)",
        "Fewer papers/implementations",
        "Hyperparameter tuning more sensitive",
    ),
    best_for=(
        "Safety-critical apps",
        "minimal capability loss",
        "conservative alignment",
    ),
    requires_reference_model=True,
    requires_reward_model=False,
    requires_verification=False,
    inference_overhead="None",
    reversible=False,
    composable=False,
    time=Time("Medium", 3.0, 5.0, "Similar to DPO"),
    data=Data("preference pairs", "High", 1000, 5000, "Preference gap ≥0.15"),
    memory=Memory(True, "Reference + gradients", 4.0),
    metrics=(
        "KL divergence",
        "capability retention",
    ),
    targets=(
        "KL ≤0.05",
        "retention ≥95%",
    ),
    gates={
        "kl": GateSpec(
            "divergence from the stage's start on the policy's own completions, nats per token", maximum=0.05
        ),
        "retention": GateSpec("what is left of the capability suite, mean over its tasks", minimum=0.95),
        "preference_gap": GateSpec("held-out margin between chosen and rejected, beta 0.1", minimum=0.15),
        "preferred_share_gain": GateSpec(
            "more sampled completions show the preferred behaviour (lower 95 % bound)", minimum=0.0
        ),
        "broken_share": GateSpec("sampled completions that are broken", maximum=0.05),
        "length_ratio": GateSpec("completion length against the stage's start", minimum=0.75, maximum=1.25),
        "preferred_share": GateSpec("share of preferred completions itself", default=False),
        "preference_accuracy": GateSpec("held-out pairs ranked right", default=False),
        "retention_worst": GateSpec("what is left of the suite's worst task", default=False),
        "kl_base": GateSpec("divergence from the recipe's base", default=False),
    },
    backends="PyTorch and cloud in the source; PyTorch and MLX here",
    complexity=3,
    capability=4,
)


class Anchors(Strict):
    """General prompts, answered by the model as the stage found it, on which it must not move either."""

    share: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Anchor rows beside the pairs of each micro-batch, as a share of the pairs; at least one unless 0."""
    source: str | None = None
    """Prompts or conversations; the lab's general data or the built-in ones when left out."""


class TrustRegion(Strict):
    """Where the policy may go: probed every so many steps; a breach goes back to the last probe that held."""

    every: Count = 25
    kl: Annotated[float, Field(gt=0)] = 0.05
    """Nats per token on completions sampled at the probe."""
    retention: Share = 0.95
    prompts: Count = 64
    suite_n: Count = 20
    """Rows of each task of the capability suite at a probe."""
    slower: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Factor on the learning rate after a step back; the KL coefficient is doubled."""


class Stage(TrainingStage):
    """A Conservative Policy Optimization stage: DPO, an explicit penalty on the divergence, and a trust region."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-5
    beta: Annotated[float, Field(gt=0, le=10)] = 0.1
    sft_weight: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Weight of the chosen completion's likelihood beside the preference loss, as in DPO."""
    kl_coefficient: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the divergence at the start; it adapts (Ziegler et al. 2019, section 2.2)."""
    kl_target: Annotated[float, Field(gt=0)] = 0.04
    """What the coefficient steers the divergence on pairs and anchors to, nats per token."""
    anchors: Anchors = Anchors()
    trust_region: TrustRegion = TrustRegion()
    judge: str | None = None
    """YAML file with the regular expressions `preferred` and `rejected`; without one the preferred share is not gated."""
