"""Abliteration: remove refusals by taking their direction out of the activations."""

from __future__ import annotations

from recipes.methods.card import Card, Data, GateSpec, Memory, Time

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
    },
    complexity=1,
    capability=1,
)
