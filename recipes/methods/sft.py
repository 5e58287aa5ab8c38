"""SFT/LoRA: supervised fine-tuning."""

from __future__ import annotations

from recipes.methods.card import Card, Data, GateSpec, Memory, Time
from recipes.schema import ConversationStage

CARD = Card(
    name="sft",
    title="SFT/LoRA",
    purpose="Inject new knowledge or skills",
    strengths=(
        "Simple, well-understood methodology",
        "Fast training (<1 hour on consumer GPU)",
        "Low data requirements (100-1000 examples)",
        "Works for any task type",
        "Widely supported (all backends)",
        "Low memory (4-bit quantization + LoRA)",
    ),
    weaknesses=(
        "No preference modeling",
        "Can overfit to training examples",
        "May degrade base model capabilities",
        "No control over style/tone preferences",
        "Catastrophic forgetting possible",
    ),
    best_for=("Knowledge injection", "domain adaptation", "teaching new tasks"),
    requires_reference_model=False,
    requires_reward_model=False,
    requires_verification=False,
    inference_overhead="None",
    reversible=False,
    composable=False,
    time=Time("Fast", 0.5, 1.0, "Fast, single pass over data"),
    data=Data("conversations", "Low", 100, 1000, "Diversity, correctness"),
    memory=Memory(False, "LoRA adapters", 2.0),
    metrics=("Loss", "perplexity", "eval accuracy"),
    targets=("Loss decreasing", "eval accuracy >baseline"),
    gates={
        "heldout_loss": GateSpec("the held-out loss falls (p value of a trend test over its points)", maximum=0.05),
        "accuracy_gain": GateSpec(
            "held-out accuracy above the stage's start (lower 95 % bound of the gain)", minimum=0.0
        ),
        "retention": GateSpec("what is left of the capability suite, mean over its tasks", minimum=0.9),
        "accuracy": GateSpec("held-out accuracy itself", default=False),
        "token_accuracy": GateSpec("held-out accuracy per token", default=False),
        "retention_worst": GateSpec("what is left of the suite's worst task", default=False),
        "kl": GateSpec("divergence from the stage's start", default=False),
        "perplexity": GateSpec("held-out perplexity", default=False),
    },
    complexity=1,
    capability=2,
)


class Stage(ConversationStage):
    """An SFT stage. Loss on every assistant turn; a share of replay keeps the rest of the model as it was."""
