"""The bench of an abliteration stage on MLX; see engine.interventions.abliteration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from engine.backends.interface import Conversation
from engine.backends.mlx.adapters import hub_name, module_at, own_name
from engine.backends.mlx.directions import prompt_means
from engine.backends.mlx.edits import EditSet, effective_weight, row_products
from engine.backends.mlx.network import Network
from engine.backends.mlx.policy import MLXPolicy
from engine.interventions.abliteration import AbliterationBench
from engine.interventions.edits import Edit, Rows
from engine.interventions.writers import Writer, find_writers


class Bench(AbliterationBench):
    def __init__(self, policy: MLXPolicy) -> None:
        super().__init__(writers(policy.network))
        self.policy = policy

    def prompt_means(
        self, prompts: Sequence[Conversation], positions: int, progress: Callable[[int, int], None] | None
    ) -> np.ndarray:
        return prompt_means(self.policy, prompts, positions, progress)

    def rows(self, module: str, unit: np.ndarray) -> Rows:
        return row_products(effective_weight(module_at(self.policy.network.model, own_name(module))), unit)

    def hang(self, edits: Sequence[Edit], strength: float) -> None:
        self.policy.interventions.replace()
        self.policy.interventions.replace(EditSet(self.policy.network, edits, strength))


def writers(network: Network) -> list[Writer]:
    """What every layer writes into the residual stream. Raises InputError naming a layer where that cannot be told."""
    names = {id(module): hub_name(name) for name, module in network.model.named_modules()}
    return find_writers(
        network.layers,
        lambda module: names[id(module)],
        lambda layer: layer.children(),
        lambda part: any(array.ndim > 1 for array in _arrays(part)),
    )


def _arrays(part: Any) -> list[mx.array]:
    """The weights of a layer's child: a module, or a list or dict of modules."""
    return [array for _, array in tree_flatten(part.parameters() if isinstance(part, nn.Module) else part)]
