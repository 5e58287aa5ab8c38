"""RLVR: GRPO whose advantages are per token, from verified steps and the final answer (engine/backends/groups.py)."""

from __future__ import annotations

from typing import Any

import numpy as np

from engine.backends.groups import group_advantages, process_advantages, rewarded_steps, step_gauges
from engine.backends.interface import TrainingLink
from engine.backends.mlx.grpo import GRPOTrainer, train_group
from engine.backends.mlx.policy import MLXPolicy
from engine.verify.interface import StepVerifier


class RLVRTrainer(GRPOTrainer):
    verifier: StepVerifier

    def advantages(
        self, rewards: list[float], asked: list[str], texts: list[str], answers: list[str], ids: list[list[int]]
    ) -> list[np.ndarray]:
        stage = self.stage
        steps = rewarded_steps(self.verifier, self.policy.tokenizer, asked, texts, answers, ids)
        self._told[-1] |= step_gauges(steps)
        outcome = group_advantages(rewards, stage.group_size)[:, None]
        process = process_advantages(steps, stage.group_size, max(map(len, ids)))
        both = stage.outcome_weight * outcome + stage.process_weight * process
        return [each[: len(one)].astype(np.float32) for each, one in zip(both, ids, strict=True)]


def train(policy: MLXPolicy, rows: Any, stage: Any, link: TrainingLink) -> None:
    """Train on ``rows.questions`` with the steps and answers that ``rows.verifier`` accepts."""
    train_group(RLVRTrainer, policy, rows, stage, link)
