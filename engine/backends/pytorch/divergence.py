"""Exact KL from hidden states, at the positions of the training batch: the live gauge, without extra logits in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from engine.backends.pytorch.heads import (
    DIVERGENCE_COPIES,
    WholeDivergence,
    causal_model,
    head_logits,
    in_fp32,
    logit_form,
    small,
)

REVERSE = 1.0
"""The kernel's ``beta`` for KL(student || teacher): the policy is the student, the reference the teacher."""


@contextlib.contextmanager
def captured_hidden_states(model: Any, with_graph: bool = False) -> Iterator[list[torch.Tensor]]:
    """Collect the last hidden state (B, T, H) of every forward of the backbone while the context is open.

    ``with_graph`` keeps them differentiable, for a loss on them.
    """
    collected: list[torch.Tensor] = []

    def keep(_module: Any, _inputs: Any, output: Any) -> None:
        hidden = output.last_hidden_state
        collected.append(hidden if with_graph else hidden.detach())

    handle = backbone(model).register_forward_hook(keep)
    try:
        yield collected
    finally:
        handle.remove()


def backbone(model: Any) -> torch.nn.Module:
    """The model below its language-model head."""
    inner = causal_model(model)
    return getattr(inner, inner.base_model_prefix)


def token_divergence(
    model: Any, policy_hidden: torch.Tensor, reference_hidden: torch.Tensor, reference: Any = None
) -> torch.Tensor:
    """KL(policy || reference) in nats for each row of two (N, H) hidden states -> (N,).

    Each is read through its own model's head: ``reference`` is the second model of full fine-tuning; without one both
    have the head of ``model``, which no adapter changes. Differentiable in the policy where that is part of a graph.
    """
    inner = causal_model(model)
    other = inner if reference is None else causal_model(reference)
    head, other_head = inner.get_output_embeddings(), other.get_output_embeddings()
    if in_fp32(head.weight) and small(len(policy_hidden), head.weight.shape[0], DIVERGENCE_COPIES, tiles=2):
        with torch.no_grad():
            start = torch.log_softmax(head_logits(other, reference_hidden), dim=-1)
        policy = torch.log_softmax(head_logits(inner, policy_hidden), dim=-1)
        return WholeDivergence.apply(policy, start)

    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction  # TRL is slow to import, and exports need none

    scale, cap = logit_form(inner.config)
    sides = (policy_hidden, head.weight, head.bias, reference_hidden, other_head.weight, other_head.bias)
    return ChunkedDivergenceFunction.apply(*sides, REVERSE, 1.0, scale, cap, scale, cap)[0]


def predicting_positions(completion_mask: torch.Tensor, at_most: int) -> torch.Tensor:
    """Boolean (B, T-1) mask of positions that predict a counted token, thinned evenly to about ``at_most``.

    The gauge is an estimate by design; a fixed stride keeps its cost small at large vocabularies and draws no
    random number, so measuring never moves training.
    """
    mask = completion_mask[:, 1:].bool()
    total = int(mask.sum())
    stride = -(-total // at_most)
    if stride > 1:
        rank = mask.flatten().cumsum(0) - 1
        mask = mask & (rank % stride == 0).view_as(mask)
    return mask


def reference_forward(policy: Any, ids: torch.Tensor, mask: torch.Tensor, bf16: bool) -> torch.Tensor:
    """Last hidden state (B, T, H) of the stage's start for those tokens; the head runs on one position only."""
    return reference_states(policy, {"input_ids": ids, "attention_mask": mask}, bf16)


@torch.no_grad()
def reference_states(policy: Any, inputs: dict[str, Any], bf16: bool) -> torch.Tensor:
    """The same for the model's inputs, whatever they are."""
    with (
        policy.weights("start") as reference,
        captured_hidden_states(reference) as hidden,
        torch.autocast(inputs["input_ids"].device.type, dtype=torch.bfloat16, enabled=bf16),
    ):
        reference(**inputs, use_cache=False, logits_to_keep=1)
    return hidden[0]
