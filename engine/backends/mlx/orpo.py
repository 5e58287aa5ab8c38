"""ORPO (Hong et al. 2024): likelihood of the chosen and an odds ratio, no reference in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from engine.backends.interface import TrainingLink
from engine.backends.mlx.logprobs import token_divergence, token_logprobs
from engine.backends.mlx.losses import halves, mean_over, orpo_loss, sums
from engine.backends.mlx.network import Weights
from engine.backends.mlx.policy import MLXPolicy
from engine.backends.mlx.preferences import PreferenceTrainer, encoded_pairs
from engine.backends.mlx.training import Arrays
from engine.evaluate.preference import GAP_BETA

GAUGE_EVERY = 10
"""Steps between two readings of KL and margin: both need the reference, which the loss does not."""
GAUGE_PAIRS = 4


class ORPOTrainer(PreferenceTrainer):
    def arrays(self, micro_batches: list[list[int]]) -> list[Arrays]:
        self._gauge_pairs = [self.pairs[index] for index in micro_batches[0][:GAUGE_PAIRS]]
        return super().arrays(micro_batches)

    def loss(self, arrays: Arrays, reference: Weights) -> tuple[mx.array, Arrays]:
        logprobs = token_logprobs(self.network, self.hidden(arrays["ids"])[arrays["positions"]], arrays["targets"])
        summed = sums(logprobs, arrays["counted"], arrays["owner"], arrays["ids"].shape[0])
        loss, log_odds = orpo_loss(summed, arrays["lengths"], self.stage.odds_weight)
        chosen, rejected = halves(summed)
        return loss / arrays["parts"], {
            "log_odds": log_odds.mean(),
            "preference_accuracy": (log_odds > 0).astype(mx.float32).mean(),
            "logprob_chosen": chosen.mean(),
            "logprob_rejected": rejected.mean(),
        }

    def look(self, batches: list[Arrays]) -> dict[str, float]:
        """KL and the margin as the preference gap defines it, on the first pairs of the batch."""
        if self.step % GAUGE_EVERY or not self.policy.has("start"):
            return {}
        arrays = self.pair_arrays(self._gauge_pairs)
        states, summed = [], []
        for which in ("policy", "start"):
            with self.policy.weights(which) as network:
                hidden = network.hidden(arrays["ids"])
                states.append(hidden.reshape(-1, hidden.shape[-1])[arrays["positions"]])
                logprobs = token_logprobs(network, states[-1], arrays["targets"])
                summed.append(sums(logprobs, arrays["counted"], arrays["owner"], arrays["ids"].shape[0]))
                mx.eval(states, summed)
        chosen, rejected = halves(summed[0] - summed[1])
        divergence = token_divergence(self.network, *(state[arrays["kl_places"]] for state in states))
        kl = mean_over(divergence, arrays["kl_counted"])
        found = {
            "reward": GAP_BETA * (chosen - rejected).mean(),
            "kl": kl,
            "kl_sequence": kl * arrays["lengths"].mean(),
        }
        return {name: float(value.item()) for name, value in found.items()}


def train(policy: MLXPolicy, rows: Sequence[Any], stage: Any, link: TrainingLink) -> None:
    """Train on preference pairs; the start is kept only for the gauges and the gates."""
    ORPOTrainer(policy, stage, encoded_pairs(policy, rows, stage)).train(link)
