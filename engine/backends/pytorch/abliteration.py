"""The bench of an abliteration stage on PyTorch; see engine.interventions.abliteration."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from engine.backends.interface import Conversation
from engine.backends.pytorch.directions import prompt_means
from engine.backends.pytorch.edits import EditSet, effective_weight, row_products
from engine.backends.pytorch.heads import causal_model
from engine.backends.pytorch.layers import writers
from engine.backends.pytorch.policy import TorchPolicy
from engine.interventions.abliteration import AbliterationBench
from engine.interventions.edits import Edit, Rows


class Bench(AbliterationBench):
    def __init__(self, policy: TorchPolicy) -> None:
        super().__init__(writers(policy.model))
        self.policy = policy

    def prompt_means(
        self, prompts: Sequence[Conversation], positions: int, progress: Callable[[int, int], None] | None
    ) -> np.ndarray:
        return prompt_means(self.policy, prompts, positions, progress)

    def rows(self, module: str, unit: np.ndarray) -> Rows:
        return row_products(effective_weight(causal_model(self.policy.model).get_submodule(module)), unit)

    def hang(self, edits: Sequence[Edit], strength: float) -> None:
        self.policy.interventions.replace()
        self.policy.interventions.replace(EditSet(self.policy.model, edits, strength))
