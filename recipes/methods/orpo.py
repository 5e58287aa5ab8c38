"""ORPO: odds-ratio preference optimization."""

from __future__ import annotations

from recipes.methods.card import Card, Data, GateSpec, Memory, Time

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
    },
    complexity=2,
    capability=3,
)
