"""Anti-hallucination: answer what is known, abstain on what is not."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recipes.methods.card import Card, Data, GateSpec, Memory, Time
from recipes.schema import ConversationStage

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
        "ece_cut": GateSpec("relative cut of the calibration error, of what it answers before and after", minimum=0.3),
        "brier_change": GateSpec("change of the Brier score likewise", maximum=0.0),
        "hallucination_rate": GateSpec("wrong among the answered", default=False),
        "retention": GateSpec("what is left of the capability suite, mean over its tasks", default=False),
        "retention_worst": GateSpec("what is left of the suite's worst task", default=False),
        "kl": GateSpec("divergence from the stage's start on the policy's own completions", default=False),
    },
    complexity=2,
    capability=2,
    from_strategies=True,
)


class Stage(ConversationStage):
    """An anti-hallucination stage."""

    abstention: Annotated[str, Field(min_length=1, max_length=400)] = "I do not know."
    """What it shall say where it does not know."""
    samples: Annotated[int, Field(ge=0, le=64)] = 4
    """Answers sampled at temperature 1 for each question, beside the greedy one, to find out what is known."""
