"""AdamW and the learning rate as transformers' Trainer has them, on mlx.optimizers; its state leaf by leaf."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_flatten

from engine.backends.mlx.network import Weights

NEVER_DECAYED = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")
"""Weights that no decay is applied to, as in ``transformers.Trainer.get_decay_parameter_names``."""
FILE = "optimizer.safetensors"


class AdamW:
    """Adam with bias correction, decoupled weight decay and clipping of the gradient's global norm.

    All that it knows is in ``state``: the step, the rate and two moments for each weight.
    """

    def __init__(self, weights: Weights, weight_decay: float, max_grad_norm: float) -> None:
        self._adam = optim.Adam(learning_rate=0.0, bias_correction=True)
        self._adam.init(weights)
        self._decay = weight_decay
        self._max_norm = max_grad_norm

    @property
    def state(self) -> dict[str, Any]:
        return self._adam.state

    def set_rate(self, rate: float) -> None:
        self._adam.learning_rate = mx.array(rate)

    def apply(self, weights: Weights, gradients: Weights) -> tuple[Weights, mx.array]:
        """``(new weights, norm of the gradient before clipping)``."""
        clipped, norm = optim.clip_grad_norm(gradients, self._max_norm if self._max_norm else math.inf)
        if self._decay:
            kept = 1 - self._adam.learning_rate * self._decay
            weights = {
                name: value if NEVER_DECAYED.search(name.lower()) else (value * kept).astype(value.dtype)
                for name, value in weights.items()
            }
        return self._adam.apply_gradients(clipped, weights), norm

    # ---- checkpoints ---------------------------------------------------------------------------------------------

    def leaves(self) -> Weights:
        """A snapshot. Copies: a compiled update overwrites the arrays of the state it is given in place."""
        return {name: mx.array(value) for name, value in tree_flatten(self._adam.state)}

    def take(self, leaves: Weights) -> None:
        """Put every leaf back where it was; a leaf that is missing is a KeyError."""
        state = self._adam.state
        for name in state:
            if isinstance(state[name], dict):
                state[name].update({key: mx.array(leaves[f"{name}.{key}"]) for key in state[name]})
            else:
                state[name] = mx.array(leaves[name])
        mx.eval(state)  # what was read from a file is read now, not when the file may be gone

    def save(self, folder: Path) -> None:
        mx.save_safetensors(str(folder / FILE), self.leaves())

    def load(self, folder: Path) -> None:
        self.take(mx.load(str(folder / FILE)))


def learning_rate(stage: Any, step: int) -> float:
    """The rate of the step that follows ``step`` steps: ``transformers.get_scheduler`` with the stage's schedule."""
    warmup = math.ceil(stage.steps * stage.warmup)
    if step < warmup:
        return stage.learning_rate * step / max(1, warmup)
    through = (step - warmup) / max(1, stage.steps - warmup)
    if stage.schedule == "linear":
        return stage.learning_rate * max(0.0, 1 - through)
    if stage.schedule == "cosine":
        return stage.learning_rate * max(0.0, 0.5 * (1 + math.cos(math.pi * through)))
    return stage.learning_rate
