"""Calibration: confidence that means what it says."""

from __future__ import annotations

from typing import Literal

from recipes.methods.card import Card, Data, GateSpec, Memory, Time
from recipes.schema import AnyStage

CARD = Card(
    name="calibration",
    title="Calibration (uncertainty)",
    purpose="Make the model's confidence match how often it is right",
    strengths=(
        "Changes no weights and no answers",
        "Minutes, not hours",
        "Makes uncertainty visible in chat and exports",
    ),
    weaknesses=(
        "Does not make the model know more",
        "One temperature is not enough where known and unknown questions mix",
        "Needs held-out questions with answers",
    ),
    best_for=(
        "Uncertainty before anti-hallucination",
        "research assistants",
    ),
    requires_reference_model=False,
    requires_reward_model=False,
    requires_verification=True,
    inference_overhead="None",
    reversible=True,
    composable=False,
    time=Time("Fast", 0.083, 0.5, "One pass over the questions, then a fit"),
    data=Data("questions with answers", "Medium", 1000, 2000, "Known and unknown questions alike"),
    memory=Memory(False, "Original model", 2.0),
    metrics=(
        "ECE",
        "Brier score",
    ),
    targets=(
        "ECE down by 30% or more",
        "Brier no worse",
    ),
    gates={
        "ece_cut": GateSpec("relative cut of the expected calibration error", minimum=0.3),
        "brier_change": GateSpec("change of the Brier score", maximum=0.0),
        "ece": GateSpec("expected calibration error itself", default=False),
    },
    complexity=1,
    capability=1,
    from_strategies=True,
)


class Stage(AnyStage):
    """A calibration stage: it trains nothing."""

    by: Literal["auto", "one", "length"] = "auto"
    """One temperature, one for each answer length, or whichever cross-validation favours."""
