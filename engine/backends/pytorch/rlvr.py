"""RLVR: GRPO whose advantages are per token, from verified steps and the final answer.

Process supervision after DeepSeekMath (Shao et al. 2024, section 4.1.3): the step rewards of a group are normalised
together, and a token's advantage is the sum of those of its own and all later steps; beside it the outcome's advantage.
"""

from __future__ import annotations

from typing import Any

import torch

from engine.backends.groups import Steps, process_advantages, rewarded_steps, step_gauges
from engine.backends.interface import TrainingLink
from engine.backends.pytorch.grpo import LinkedGRPOTrainer, train_group
from engine.backends.pytorch.policy import TorchPolicy
from engine.verify.interface import StepVerifier


class LinkedRLVRTrainer(LinkedGRPOTrainer):
    verifier: StepVerifier
    process_weight = 0.5
    outcome_weight = 1.0

    def prepare(self, stage: Any) -> None:
        self.process_weight, self.outcome_weight = stage.process_weight, stage.outcome_weight

    def scored(self, prompts: list[str], texts: list[str], answers: list[str], ids: list[list[int]]) -> None:
        self._steps: list[Steps] = rewarded_steps(self.verifier, self._tokenizer, prompts, texts, answers, ids)
        for name, value in step_gauges(self._steps).items():
            self._metrics["train"][f"gauge/{name}"].append(value)

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        outcome = output["advantages"].unsqueeze(1)
        width = output["completion_ids"].shape[1]
        process = torch.from_numpy(process_advantages(self._steps, self.group_size, width)).to(outcome)
        output["advantages"] = self.outcome_weight * outcome + self.process_weight * process
        return output


def train(policy: TorchPolicy, rows: Any, stage: Any, link: TrainingLink) -> None:
    """Train on ``rows.questions`` with the steps and answers that ``rows.verifier`` accepts."""
    train_group(LinkedRLVRTrainer, policy, rows, stage, link)
