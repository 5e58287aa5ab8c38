"""Anti-hallucination: answer what is known, abstain on what is not."""

from __future__ import annotations

from recipes.methods.card import Card, Data, GateSpec, Memory, Time

CARD = Card(
    name="anti_hallucination",
    title="Anti-hallucination (confidence calibration)",
    purpose="Reduce false confidence",
    strengths=(
        "Learns from what the model itself knows",
        "Keeps the answers that were right",
        "Refits the calibration at its end",
    ),
    weaknesses=(
        "May abstain on what it could have guessed",
        "Needs questions that it knows and that it does not",
        "Knowledge must be measured before training",
    ),
    best_for=(
        "Math tutors and code assistants after GRPO",
        "research assistants after calibration",
    ),
    requires_reference_model=False,
    requires_reward_model=False,
    requires_verification=True,
    inference_overhead="None",
    reversible=False,
    composable=False,
    time=Time("Medium", 0.5, 2.0, "Sampling its own answers, then SFT"),
    data=Data("questions with answers", "Medium", 1000, 2000, "Known and unknown questions alike"),
    memory=Memory(False, "LoRA adapters", 2.0),
    metrics=(
        "Abstention recall",
        "abstention precision",
        "accuracy kept",
        "hallucination rate",
    ),
    targets=(
        "Recall ≥80% on the unknown",
        "precision ≥80%",
        "accuracy on the known kept ≥95%",
    ),
    gates={
        "abstention_recall": GateSpec("unknown questions that it abstains on", minimum=0.8),
        "abstention_precision": GateSpec("abstentions that were on unknown questions", minimum=0.8),
        "accuracy_kept": GateSpec("accuracy on the known against before", minimum=0.95),
    },
    complexity=2,
    capability=2,
    from_strategies=True,
)
