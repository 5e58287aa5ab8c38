"""DPO (Rafailov et al. 2023); the reference is the adapter as the stage found it: the same base, other small arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from engine.backends.interface import TrainingLink
from engine.backends.mlx.logprobs import token_divergence, token_logprobs
from engine.backends.mlx.losses import chosen_likelihood_loss, dpo_loss, mean_over, sums
from engine.backends.mlx.network import Weights
from engine.backends.mlx.policy import MLXPolicy
from engine.backends.mlx.preferences import PreferenceTrainer, encoded_pairs, pair_gauges
from engine.backends.mlx.training import Arrays


class DPOTrainer(PreferenceTrainer):
    uses_reference = True

    def loss(self, arrays: Arrays, reference: Weights) -> tuple[mx.array, Arrays]:
        loss, gauges, policy, start = self.pair_loss(arrays, reference)
        places = arrays["kl_places"]
        divergence = token_divergence(self.network, mx.stop_gradient(policy[places]), start[places])
        return loss / arrays["parts"], gauges | kl_gauges(mx.stop_gradient(divergence), arrays)

    def pair_loss(self, arrays: Arrays, reference: Weights) -> tuple[mx.array, Arrays, mx.array, mx.array]:
        """``(loss, gauges, policy's hidden states (M, H), the start's)`` of a micro-batch."""
        now = self.trained_weights()
        ids, positions, targets = arrays["ids"], arrays["positions"], arrays["targets"]
        policy = self.hidden(ids)[positions]
        logprobs = token_logprobs(self.network, policy, targets)
        start = self.reference_hidden(ids, reference, now)[positions]
        rows = ids.shape[0]
        summed = sums(logprobs, arrays["counted"], arrays["owner"], rows)
        before = sums(self.start_logprobs(start, targets, reference, now), arrays["counted"], arrays["owner"], rows)
        loss, rewards = dpo_loss(summed, before, self.stage.beta)
        if self.stage.sft_weight:
            likelihood = chosen_likelihood_loss(logprobs, arrays["counted"], arrays["owner"], rows // 2)
            loss = loss + self.stage.sft_weight * likelihood
        return loss, pair_gauges(summed, rewards), policy, start

    def start_logprobs(self, hidden: mx.array, targets: mx.array, reference: Weights, now: Weights) -> mx.array:
        """Under the start's own head, which is another one only in full fine-tuning."""
        self.network.use(reference)
        logprobs = token_logprobs(self.network, hidden, targets)
        self.network.use(now)
        return mx.stop_gradient(logprobs)


def kl_gauges(divergence: mx.array, arrays: Arrays) -> Arrays:
    """KL(policy || start) per token, and summed over a completion of mean length."""
    kl = mean_over(divergence, arrays["kl_counted"])
    return {"kl": kl, "kl_sequence": kl * arrays["lengths"].mean()}


def train(policy: MLXPolicy, rows: Sequence[Any], stage: Any, link: TrainingLink) -> None:
    """Train on preference pairs (engine.data.formats.Preference), from the adapter as the stage found it."""
    DPOTrainer(policy, stage, encoded_pairs(policy, rows, stage)).train(link)
