"""CPO: conservative policy optimization (not the contrastive one that TRL calls CPO)."""

from __future__ import annotations

from recipes.methods.card import Card, Data, GateSpec, Memory, Time

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
    },
    backends="PyTorch and cloud in the source; PyTorch and MLX here",
    complexity=3,
    capability=4,
)
