"""The bench of a steering stage on PyTorch; see engine.interventions.steering."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.backends.interface import Conversation
from engine.backends.pytorch.directions import completion_means, prompt_means
from engine.backends.pytorch.policy import TorchPolicy
from engine.backends.pytorch.vectors import VectorSet
from engine.interventions.directions import Side
from engine.interventions.steering import Row, SteeringBench
from engine.interventions.vectors import Vector


class Bench(SteeringBench):
    def __init__(self, policy: TorchPolicy) -> None:
        super().__init__()
        self.policy = policy

    def prompt_means(self, prompts: Sequence[Conversation], positions: int) -> np.ndarray:
        return prompt_means(self.policy, prompts, positions)

    def completion_means(self, rows: Sequence[Row], progress: Any) -> Side:
        return completion_means(self.policy, rows, progress)

    def hang(self, vectors: Sequence[Vector]) -> None:
        self.policy.interventions.replace()
        if vectors:
            self.policy.interventions.replace(VectorSet(self.policy.model, vectors))

    def held(self, vector: Vector, prompts: Sequence[Conversation]) -> int:
        self.policy.generate(prompts, max_new_tokens=1, temperature=0.0, seed=0)
        return sum(int(rows.sum()) for rows in vector.fired)
