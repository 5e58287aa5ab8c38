"""Activation steering: vectors added at run time."""

from __future__ import annotations

from recipes.methods.card import Card, Data, GateSpec, Memory, Time

CARD = Card(
    name="steering",
    title="Activation Steering",
    purpose="Control behaviour at run time",
    strengths=(
        "Inference-time control (no retraining)",
        "Reversible (remove vector to restore)",
        "Composable (combine multiple vectors)",
        "Fast experimentation (A/B testing)",
        "Low cost (no training)",
    ),
    weaknesses=(
        "Limited control precision",
        "May affect unrelated outputs (side effects)",
        "Requires vector extraction (data collection)",
        "Not as powerful as training",
        "Can be brittle (model-specific)",
    ),
    best_for=(
        "Runtime control",
        "A/B testing",
        "composable behaviors",
        "quick experiments",
    ),
    requires_reference_model=False,
    requires_reward_model=False,
    requires_verification=False,
    inference_overhead="Low",
    reversible=True,
    composable=True,
    time=Time("N/A", 0.167, 0.5, "Vector extraction only"),
    data=Data("contrast pairs", "Low", 50, 200, "Targeted examples"),
    memory=Memory(False, "Steering vectors", 2.0),
    metrics=(
        "Steering strength",
        "side effects",
    ),
    targets=(
        "Strength adequate",
        "side effects <10%",
    ),
    gates={
        "steering_strength": GateSpec("shift of the target behaviour over the shift by a prompt alone", minimum=0.5),
        "side_effects": GateSpec("largest relative drop over the off-target tasks at the same strength", maximum=0.1),
    },
    complexity=3,
    capability=1,
)
