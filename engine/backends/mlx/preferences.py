"""What the preference methods share: pairs as one batch of twice as many rows, chosen first, and the gauges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import numpy as np

from engine.backends.mlx.batches import Row, filled, padded_places, thinned
from engine.backends.mlx.losses import halves
from engine.backends.mlx.network import Weights
from engine.backends.mlx.policy import MLXPolicy
from engine.backends.mlx.sft import counted_arrays
from engine.backends.mlx.training import Arrays, Trainer
from engine.backends.tokens import encode_completion
from recipes.errors import InputError, Problem

KL_TOKENS = 256
"""Positions of each micro-batch whose exact KL the live gauge averages."""


@dataclass(frozen=True)
class Pair:
    chosen: Row
    rejected: Row


class PreferenceTrainer(Trainer):
    kl_places = KL_TOKENS
    """Most positions of a micro-batch at which the divergence is taken."""

    def __init__(self, policy: MLXPolicy, stage: Any, pairs: Sequence[Pair]) -> None:
        super().__init__(policy, stage)
        self.pairs = pairs

    def row_lengths(self) -> list[int]:
        return [max(len(pair.chosen.ids), len(pair.rejected.ids)) for pair in self.pairs]

    def arrays(self, micro_batches: list[list[int]]) -> list[Arrays]:
        return [
            self.pair_arrays([self.pairs[index] for index in batch]) | {"parts": mx.array(float(len(micro_batches)))}
            for batch in micro_batches
        ]

    def pair_arrays(self, pairs: Sequence[Pair]) -> Arrays:
        """As ``counted_arrays``, with ``lengths`` (2B,) and where to take the divergence: ``kl_places``, ``kl_counted``."""
        rows = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
        lengths = np.array([sum(row.counted[1:]) for row in rows], np.float32)
        arrays = counted_arrays(rows)
        return arrays | {"lengths": mx.array(lengths)} | divergence_places(int(lengths.sum()), self.kl_places)

    def trained_weights(self) -> Weights:
        """The policy's weights as they stand in the model: while a loss is traced, the arguments it is traced with."""
        return self.network.trained()


def divergence_places(counted: int, at_most: int) -> Arrays:
    """Indices into the counted tokens, thinned evenly to about ``at_most`` and filled up to one of a few sizes."""
    places = np.flatnonzero(thinned(counted, at_most)).astype(np.int32)
    size = padded_places(len(places))
    return {"kl_places": filled(places, size), "kl_counted": filled(np.ones(len(places), np.float32), size)}


def pair_gauges(logprobs: mx.array, rewards: mx.array) -> Arrays:
    """Means over a micro-batch from summed log-probabilities and rewards (2B,), chosen first."""
    chosen, rejected = halves(rewards)
    logp_chosen, logp_rejected = halves(logprobs)
    return {
        "reward": (chosen - rejected).mean(),
        "preference_accuracy": (chosen > rejected).astype(mx.float32).mean(),
        "reward_chosen": chosen.mean(),
        "reward_rejected": rejected.mean(),
        "logprob_chosen": logp_chosen.mean(),
        "logprob_rejected": logp_rejected.mean(),
    }


def encoded_pairs(policy: MLXPolicy, rows: Sequence[Any], stage: Any) -> list[Pair]:
    """Preference rows (engine.data.formats.Preference) as ids; pairs whose prompt alone fills ``max_length`` are left
    out. Raises InputError if none is left."""
    found = []
    for row in rows:
        sides = []
        for completion in (row.chosen, row.rejected):
            prompt, answer = encode_completion(policy.tokenizer, list(row.prompt), completion)
            ids = [*prompt, *answer][: stage.max_length]
            counted = ([0] * len(prompt) + [1] * len(answer))[: stage.max_length]
            sides.append(Row(ids, counted))
        if all(any(side.counted) for side in sides):
            found.append(Pair(*sides))
    if not found:
        said = f"{len(rows)} pairs, none with a prompt below {stage.max_length} tokens"
        accepted = "pairs that fit; raise max_length or shorten the prompts"
        raise InputError([Problem(str(stage.data.source), None, "max_length", said, accepted)])
    return found
