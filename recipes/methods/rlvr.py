"""RLVR: reinforcement learning with verified rewards, step by step."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from recipes.methods.card import Card, Data, GateSpec, Memory, Time
from recipes.schema import GroupStage
from recipes.verifiers import CustomSteps, Steps

CARD = Card(
    name="rlvr",
    title="RLVR (Reinforcement Learning with Verified Rewards)",
    purpose="Improve complex multi-step reasoning, each step verified",
    strengths=(
        "Verified rewards at each step",
        "Better for complex multi-step reasoning",
        "Handles chain-of-thought tasks",
        "Process verification (not just outcome)",
        "Strong theoretical guarantees",
    ),
    weaknesses=(
        "Requires step-by-step verification logic",
        "Higher compute cost (verify each step)",
        "MLX backend only (currently)",
        "More complex implementation",
        "Limited tooling/support",
    ),
    best_for=(
        "Complex reasoning",
        "research tasks",
        "multi-step problem solving",
    ),
    requires_reference_model=False,
    requires_reward_model=False,
    requires_verification=True,
    inference_overhead="None",
    reversible=False,
    composable=False,
    time=Time("Slow", 6.0, 12.0, "Step-by-step verification"),
    data=Data("prompts with answers and steps", "Medium", 500, 2000, "Step verification"),
    memory=Memory(False, "Verification overhead", 3.0),
    metrics=(
        "Step correctness",
        "final correctness",
    ),
    targets=(
        "Step >80%",
        "final >90%",
    ),
    gates={
        "step_correctness": GateSpec("required steps that are there and right, held-out, greedy", minimum=0.8),
        "final_correctness": GateSpec("right final answers, held-out, greedy", minimum=0.9),
        "verifiability": GateSpec("answers that the verifier accepts while it rejects a perturbed one", default=False),
        "reward": GateSpec("mean reward of sampled completions, held-out", default=False),
        "reward_trend": GateSpec("the mean reward rises (p value of a trend test)", default=False),
        "advantage_variance": GateSpec("variance of the normalised advantages", default=False),
        "retention": GateSpec("what is left of the capability suite, mean over its tasks", default=False),
        "retention_worst": GateSpec("what is left of the suite's worst task", default=False),
        "kl": GateSpec("divergence from the stage's start on the policy's own completions", default=False),
        "length_ratio": GateSpec("completion length against the stage's start", default=False),
        "clipped_share": GateSpec("completions cut at their longest", default=False),
    },
    backends="MLX only in the source; PyTorch and MLX here",
    complexity=2,
    capability=5,
)


class Stage(GroupStage):
    """An RLVR stage."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-5
    verifier: Annotated[Steps | CustomSteps, Field(discriminator="kind")] = Steps(kind="steps")
    """Where the rewards of the steps and of the answer come from."""
    process_weight: Annotated[float, Field(ge=0, le=10)] = 0.5
    """Weight of the steps' advantages."""
    outcome_weight: Annotated[float, Field(ge=0, le=10)] = 1.0
    """Weight of the final answer's advantage."""

    @model_validator(mode="after")
    def _something_rewarded(self) -> Stage:
        if not self.process_weight and not self.outcome_weight:
            raise ValueError("a process_weight or an outcome_weight above 0: with both 0 nothing is learned")
        return self
