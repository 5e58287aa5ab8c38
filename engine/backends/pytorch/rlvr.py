"""RLVR: GRPO whose advantages are per token, from verified steps and the final answer.

Process supervision after DeepSeekMath (Shao et al. 2024, section 4.1.3): the step rewards of a group are normalised
together, and a token's advantage is the sum of those of its own and all later steps; beside it the outcome's advantage.
"""

from __future__ import annotations

from typing import Any

import torch

from engine.backends.interface import TrainingLink
from engine.backends.pytorch.grpo import LinkedGRPOTrainer, train_group
from engine.backends.pytorch.policy import TorchPolicy
from engine.verify.interface import StepVerifier

Steps = list[tuple[int, float]]
"""Steps of one completion: (index of the step's last token, reward). What is true but idle is rewarded with 0."""


class LinkedRLVRTrainer(LinkedGRPOTrainer):
    verifier: StepVerifier
    process_weight = 0.5
    outcome_weight = 1.0

    def prepare(self, stage: Any) -> None:
        self.process_weight, self.outcome_weight = stage.process_weight, stage.outcome_weight

    def scored(self, prompts: list[str], texts: list[str], answers: list[str], ids: list[list[int]]) -> None:
        found = self.verifier.steps(prompts, texts, answers)
        self._steps: list[Steps] = []
        for steps, text, tokens in zip(found, texts, ids, strict=True):
            ends = token_ends(self._tokenizer, tokens, text)
            self._steps.append([(token_at(ends, step.end), float(step.accepted and step.required)) for step in steps])
        rewards = [reward for steps in self._steps for _, reward in steps]
        if rewards:
            self._metrics["train"]["gauge/step_reward"].append(sum(rewards) / len(rewards))
        self._metrics["train"]["gauge/steps"].append(len(rewards) / max(1, len(texts)))

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        outcome = output["advantages"].unsqueeze(1)
        width = output["completion_ids"].shape[1]
        process = process_advantages(self._steps, self.group_size, width).to(outcome)
        output["advantages"] = self.outcome_weight * outcome + self.process_weight * process
        return output


def process_advantages(steps: list[Steps], group_size: int, width: int) -> torch.Tensor:
    """(N, width) advantages of N completions in groups: at each token the normalised rewards of the steps that end at
    it or later, summed. A group whose step rewards are all alike teaches nothing and gives 0."""
    advantages = torch.zeros((len(steps), width), dtype=torch.float64)
    for start in range(0, len(steps), group_size):
        group = steps[start : start + group_size]
        rewards = torch.tensor([reward for one in group for _, reward in one], dtype=torch.float64)
        if rewards.numel() < 2 or float(rewards.std(unbiased=False)) < 1e-8:
            continue
        mean, deviation = rewards.mean(), rewards.std(unbiased=False)
        for place, one in enumerate(group):
            for end, reward in one:
                advantages[start + place, : end + 1] += (reward - mean) / deviation
    return advantages


def token_ends(tokenizer: Any, tokens: list[int], text: str) -> list[int]:
    """Number of characters of ``text`` that the tokens up to and including each one spell."""
    pieces = tokenizer.batch_decode([[token] for token in tokens], skip_special_tokens=True)
    if "".join(pieces) != text:  # a character over several tokens, or a decoder that joins words: decode every prefix
        return [len(tokenizer.decode(tokens[: n + 1], skip_special_tokens=True)) for n in range(len(tokens))]
    ends, total = [], 0
    for piece in pieces:
        total += len(piece)
        ends.append(total)
    return ends


def token_at(ends: list[int], character: int) -> int:
    """Index of the token that spells the last of the first ``character`` characters."""
    return next((place for place, end in enumerate(ends) if end >= character), len(ends) - 1)


def train(policy: TorchPolicy, rows: Any, stage: Any, link: TrainingLink) -> None:
    """Train on ``rows.questions`` with the steps and answers that ``rows.verifier`` accepts."""
    train_group(LinkedRLVRTrainer, policy, rows, stage, link)
