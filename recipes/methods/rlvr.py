"""RLVR: reinforcement learning with verified rewards, step by step."""

from __future__ import annotations

from recipes.methods.card import Card, Data, GateSpec, Memory, Time

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
    },
    backends="MLX only in the source; PyTorch and MLX here",
    complexity=2,
    capability=5,
)
