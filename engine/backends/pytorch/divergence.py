"""Exact KL from hidden states, at the positions of the training batch: the live gauge, without extra logits in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

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


def causal_model(model: Any) -> Any:
    """The transformers causal model below DDP and PEFT wrappers."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def backbone(model: Any) -> torch.nn.Module:
    """The model below its language-model head."""
    inner = causal_model(model)
    return getattr(inner, inner.base_model_prefix)


def token_divergence(model: Any, policy_hidden: torch.Tensor, reference_hidden: torch.Tensor) -> torch.Tensor:
    """KL(policy || reference) in nats for each row of two (N, H) hidden states under the model's own head -> (N,).

    Differentiable in ``policy_hidden`` where that is part of a graph.
    """
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction  # TRL is slow to import, and exports need none

    inner = causal_model(model)
    head = inner.get_output_embeddings()
    config = inner.config.get_text_config()
    softcap = getattr(config, "final_logit_softcapping", None)
    scale = getattr(config, "logit_scale", None)
    if scale is None and getattr(config, "logits_scaling", None):
        scale = 1 / config.logits_scaling  # Granite divides its logits
    scale = 1.0 if scale is None else scale
    divergence, _entropy = ChunkedDivergenceFunction.apply(
        policy_hidden,
        head.weight,
        head.bias,
        reference_hidden,
        head.weight,
        head.bias,
        REVERSE,
        1.0,
        scale,
        softcap,
        scale,
        softcap,
    )
    return divergence


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


@torch.no_grad()
def reference_forward(policy: Any, ids: torch.Tensor, mask: torch.Tensor, bf16: bool) -> torch.Tensor:
    """Last hidden state (B, T, H) of the stage's start for those tokens; the head runs on one position only."""
    with (
        policy.weights("start") as reference,
        captured_hidden_states(reference) as hidden,
        torch.autocast(ids.device.type, dtype=torch.bfloat16, enabled=bf16),
    ):
        reference(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1)
    return hidden[0]
