"""SFT with LoRA (or full): cross-entropy on every assistant turn, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from engine.backends.interface import Conversation, TrainingLink
from engine.backends.mlx.batches import Row, filled, padded_ids, padded_places, predicted, thinned
from engine.backends.mlx.logprobs import token_divergence, token_logprobs
from engine.backends.mlx.losses import sft_loss
from engine.backends.mlx.network import Weights
from engine.backends.mlx.policy import MLXPolicy
from engine.backends.mlx.training import Arrays, Trainer
from engine.backends.tokens import encode_conversation
from recipes.errors import InputError, Problem

KL_EVERY = 10
"""Steps between two readings of the KL gauge: SFT has no reference forward of its own, so each reading costs one."""
KL_ROWS = 4
KL_TOKENS = 256


class SFTTrainer(Trainer):
    def __init__(self, policy: MLXPolicy, stage: Any, rows: Sequence[Row]) -> None:
        super().__init__(policy, stage)
        self.rows = rows

    def row_lengths(self) -> list[int]:
        return [len(row.ids) for row in self.rows]

    def arrays(self, micro_batches: list[list[int]]) -> list[Arrays]:
        # Over all ranks, whose gradients are averaged: so each rank's part is to count as many times over.
        items = sum(sum(self.rows[index].counted[1:]) for batch in micro_batches for index in batch) / self.ranks.size
        found = []
        for batch in micro_batches:
            self._gauge_rows = [self.rows[index] for index in micro_batches[0][:KL_ROWS]]
            found.append(counted_arrays([self.rows[index] for index in batch]) | {"items": mx.array(float(items))})
        return found

    def loss(self, arrays: Arrays, reference: Weights) -> tuple[mx.array, Arrays]:
        hidden = self.hidden(arrays["ids"])[arrays["positions"]]
        logprobs = token_logprobs(self.network, hidden, arrays["targets"])
        return sft_loss(logprobs, arrays["counted"], arrays["items"]), {}

    def look(self, batches: list[Arrays]) -> dict[str, float]:
        if self.step % KL_EVERY or not self.policy.has("start"):
            return {}
        return {"kl": divergence_from_start(self.policy, self._gauge_rows, KL_TOKENS)}


def divergence_from_start(policy: MLXPolicy, rows: Sequence[Row], at_most: int) -> float:
    """Mean KL(policy || start) in nats at about ``at_most`` of the rows' counted tokens, evenly spread."""
    positions, _, _ = predicted(rows)
    places = mx.array(positions[thinned(len(positions), at_most)])
    ids = padded_ids([row.ids for row in rows])
    states = []
    for which in ("policy", "start"):
        with policy.weights(which) as network:
            hidden = network.hidden(ids)
            states.append(hidden.reshape(-1, hidden.shape[-1])[places])
            mx.eval(states)
    return float(token_divergence(policy.network, *states).mean().item())


def counted_arrays(rows: Sequence[Row]) -> Arrays:
    """``ids`` (B, T); ``positions``, ``targets``, ``counted`` and ``owner`` (M,) of the tokens that count; ``tokens``."""
    positions, targets, owner = predicted(rows)
    size = padded_places(len(positions))
    return {
        "ids": padded_ids([row.ids for row in rows]),
        "positions": filled(positions, size),
        "targets": filled(targets, size),
        "counted": filled(np.ones(len(positions), np.float32), size),
        "owner": filled(owner, size),
        "tokens": mx.array(float(sum(len(row.ids) for row in rows))),
    }


def encoded_rows(policy: MLXPolicy, conversations: Sequence[Conversation], max_length: int) -> list[Row]:
    """The conversations that have an assistant token within the length, as ids and what is trained of them."""
    encoded = [encode_conversation(policy.tokenizer, conversation, max_length) for conversation in conversations]
    return [Row(row.ids, row.trained) for row in encoded if any(row.trained)]


def train(policy: MLXPolicy, rows: Sequence[Conversation], stage: Any, link: TrainingLink) -> None:
    """Train on whole conversations. Raises InputError if no row has a token to train on."""
    kept = encoded_rows(policy, rows, stage.max_length)
    if not kept:
        found = f"{len(rows)} rows, none with an assistant token within the first {stage.max_length} tokens"
        accepted = "rows whose assistant turns fit; raise max_length or shorten the prompts"
        raise InputError([Problem(str(stage.data.source), None, "max_length", found, accepted, None)])
    SFTTrainer(policy, stage, kept).train(link)
