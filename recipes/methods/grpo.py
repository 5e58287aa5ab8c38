"""GRPO: group-relative policy optimization."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recipes.methods.card import Card, Data, GateSpec, Memory, Time
from recipes.schema import GroupStage
from recipes.verifiers import Number, VerifierSpec

CARD = Card(
    name="grpo",
    title="GRPO (Group Relative Policy Optimization)",
    purpose="Improve a task whose answers can be verified simply (math, code)",
    strengths=(
        "No critic model needed (simpler than PPO)",
        "Group-based advantage (stable)",
        "Objective correctness verification",
        "Used in DeepSeek-R1 (proven at scale)",
        "Strong for verifiable tasks",
    ),
    weaknesses=(
        "Only works for verifiable tasks (>80% verifiability)",
        "Requires verification logic implementation",
        "Higher compute (generate multiple responses per prompt)",
        "Group size hyperparameter tuning needed",
        "Not suitable for subjective tasks",
    ),
    best_for=(
        "Math",
        "code generation",
        "factual QA",
        "format compliance",
    ),
    requires_reference_model=False,
    requires_reward_model=False,
    requires_verification=True,
    inference_overhead="None",
    reversible=False,
    composable=False,
    time=Time("Slow", 4.0, 8.0, "Multiple response generation"),
    data=Data("prompts with answers", "Medium", 500, 2000, "Verifiability >80%"),
    memory=Memory(False, "Multiple responses", 3.0),
    metrics=(
        "Mean reward",
        "advantage variance",
    ),
    targets=(
        "Reward increasing",
        "variance 0.5-1.5",
    ),
    gates={
        "reward_trend": GateSpec("the mean reward rises (p value of a trend test)", maximum=0.05),
        "advantage_variance": GateSpec(
            "variance of the normalised advantages while the task is unsolved", minimum=0.5, maximum=1.5
        ),
        "verifiability": GateSpec("answers that the verifier accepts while it rejects a perturbed one", minimum=0.8),
        "reward": GateSpec("mean reward of sampled completions, held-out", default=False),
        "final_correctness": GateSpec("right final answers, held-out, greedy", default=False),
        "retention": GateSpec("what is left of the capability suite, mean over its tasks", default=False),
        "retention_worst": GateSpec("what is left of the suite's worst task", default=False),
        "kl": GateSpec("divergence from the stage's start on the policy's own completions", default=False),
        "length_ratio": GateSpec("completion length against the stage's start", default=False),
        "clipped_share": GateSpec("completions cut at their longest", default=False),
    },
    complexity=3,
    capability=5,
)


class Stage(GroupStage):
    """A GRPO stage."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-5
    verifier: VerifierSpec = Number(kind="number")
    """Where the reward comes from."""
