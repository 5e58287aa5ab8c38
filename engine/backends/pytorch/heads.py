"""The language-model head where its logits are small: built whole, once, instead of in TRL's wide tiles.

TRL's fused head and its chunked divergence work in tiles of up to 4096 positions by 32 768 words and compute each tile
again in the backward. At a large vocabulary that saves gigabytes. Where the whole logits need no more room than the tile
alone, it only costs time: such a head is built here. So the peak never rises, at any vocabulary.
"""

from __future__ import annotations

import functools
import types
from typing import Any

import torch

TILE_POSITIONS, TILE_WORDS = 4096, 32_768
"""TRL's tiles (``trl.kernels.chunked_logprob``, ``chunked_divergence``)."""
HEAD_COPIES = 4
"""Most fp32 tensors of all logits that are alive at once for log-probabilities: in the forward the logits (scaled), their
log-softmax and two for the entropy; in the backward the log-softmax, the gradient that comes in and the one that leaves."""
DIVERGENCE_COPIES = 6
"""The same for a divergence: both log-softmaxes and what the backward makes of them. TRL's has two tiles."""
PENALTY_POSITIONS = 2048
"""Most positions of a micro-batch that CPO's penalty is taken on."""
PENALTY_LEAST = 64
PENALTY_SHARE = 0.075
"""With it, and with anchors for a quarter of the pairs, CPO's step stays within 1.25 times DPO's: see below."""


def small(positions: int, vocabulary: int, copies: int, tiles: int = 1) -> bool:
    """Whether ``copies`` tensors of (positions, vocabulary) fit into the tiles that TRL would request."""
    return copies * positions * vocabulary <= tiles * min(positions, TILE_POSITIONS) * TILE_WORDS


def in_fp32(weight: torch.Tensor) -> bool:
    """Below 32 bits TRL's tiles are half as large, and its kernels keep sums in fp32: those are left to it."""
    return weight.dtype == torch.float32 and not torch.is_autocast_enabled(weight.device.type)


def causal_model(model: Any) -> Any:
    """The transformers causal model below DDP and PEFT wrappers."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def logit_form(config: Any) -> tuple[float, float | None]:
    """``(factor, cap)``: logits are ``cap * tanh(factor * x / cap)`` of the head's product x, or ``factor * x``."""
    config = config.get_text_config()
    names = ("logit_scale", "output_multiplier", "lm_head_multiplier")  # as ``trl.trainer.utils.add_fused_lm_head``
    scale = next((found for name in names if (found := getattr(config, name, None)) is not None), None)
    if scale is None and getattr(config, "logits_scaling", None):  # Granite divides its logits
        scale = config.logits_scaling if config.model_type == "hyperclovax" else 1 / config.logits_scaling
    return (1.0 if scale is None else scale), getattr(config, "final_logit_softcapping", None)


def penalty_positions(model: Any, tokens: int) -> int:
    """Positions of a micro-batch of ``tokens`` on which CPO's penalty is taken, fewer where the head is large.

    Work in multiply-adds: DPO with LoRA passes the body's weights P thrice for each token (policy there and back,
    reference there); a position of the penalty passes the head's H·V five times (two forwards, both again in the
    backward, and the gradient). 5·H·V·positions is thus kept within an eighth of 3·P·tokens; the anchors' passes are the
    other eighth. A head that is built whole is too small to count.
    """
    inner = causal_model(model)
    head = inner.get_output_embeddings()
    if in_fp32(head.weight) and small(PENALTY_POSITIONS, head.weight.shape[0], DIVERGENCE_COPIES, tiles=2):
        return PENALTY_POSITIONS
    body = sum(
        module.in_features * module.out_features
        for module in inner.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )
    affordable = int(PENALTY_SHARE * tokens * body / (head.in_features * head.out_features))
    return max(PENALTY_LEAST, min(PENALTY_POSITIONS, affordable))


def head_logits(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Logits (N, V) of hidden states (N, H) under the model's head, as its own forward would give them."""
    inner = causal_model(model)
    head = inner.get_output_embeddings()
    factor, cap = logit_form(inner.config)
    logits = torch.nn.functional.linear(hidden, head.weight, head.bias)
    if factor != 1.0:
        logits = logits * factor
    return logits if cap is None else cap * torch.tanh(logits / cap)


def add_small_head(model: Any, outputs: tuple[str, ...], temperature: float = 1.0, scored: int | None = None) -> None:
    """Put the whole head before the fused one that ``trl.trainer.utils.add_fused_lm_head`` gave to ``model``.

    ``outputs`` and ``temperature`` as there. Only positions with a label are scored; where that cannot be looked up
    (fake tensors), ``scored`` says how many at the end of each row have one.
    """
    from trl.trainer.utils import FusedCausalLMOutput

    inner = causal_model(model)
    fused = inner.forward

    @functools.wraps(fused)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        wanted = fused_lm_head and labels is not None and kwargs.get("shift_labels") is None
        if not wanted or kwargs.get("output_router_logits") or getattr(self.config, "output_router_logits", False):
            return fused(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        weight = self.get_output_embeddings().weight
        positions = labels.shape[0] * (labels.shape[1] - 1)
        if not (in_fp32(weight) and small(positions, weight.shape[0], HEAD_COPIES)):
            return fused(*args, fused_lm_head=True, labels=labels, **kwargs)
        items = kwargs.pop("num_items_in_batch", None)
        kwargs.pop("shift_labels", None)
        kwargs["use_cache"] = False
        hidden = self.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        labels = labels[:, 1:]
        mask = labels != -100
        if scored is None:
            chosen, targets = hidden[mask], labels[mask]
        else:
            chosen = hidden[:, -scored:].reshape(-1, hidden.shape[-1])
            targets = labels[:, -scored:].reshape(-1)
        told = _score(head_logits(self, chosen), targets, temperature, outputs)
        if scored is None:
            # keeps a batch without any label differentiable
            told = {name: value.new_zeros(mask.shape).masked_scatter(mask, value) for name, value in told.items()}
        else:
            pad = hidden.shape[1] - min(scored, hidden.shape[1])
            told = {name: torch.nn.functional.pad(value.view(len(mask), -1), (pad, 0)) for name, value in told.items()}
        count = mask.sum().clamp(min=1) if items is None else items
        return FusedCausalLMOutput(loss=-told["log_probs"].sum() / count, label_mask=mask, **told)

    inner.forward = types.MethodType(forward, inner)


def _score(
    logits: torch.Tensor, targets: torch.Tensor, temperature: float, outputs: tuple[str, ...]
) -> dict[str, torch.Tensor]:
    """What the fused head's output has for each of the positions (N,); only ``log_probs`` is differentiable."""
    if temperature != 1.0:
        logits = logits / temperature
    logprobs = torch.log_softmax(logits, dim=-1)
    told = {"log_probs": logprobs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)}
    with torch.no_grad():
        if "mean_logits" in outputs:
            told["mean_logits"] = logits.mean(-1)
        del logits
        if "entropy" in outputs:
            told["entropy"] = -(logprobs.exp() * logprobs).sum(-1)
        if "is_top1" in outputs:
            told["is_top1"] = logprobs.argmax(-1) == targets
    return told


class WholeDivergence(torch.autograd.Function):
    """KL(policy || reference) (N,) of two log-softmaxes (N, V); the gradient is the policy's alone."""

    @staticmethod
    def forward(ctx: Any, policy: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
        difference = policy - reference
        divergence = (policy.exp() * difference).sum(-1)
        ctx.save_for_backward(policy, difference)
        return divergence

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        policy, difference = ctx.saved_tensors
        # d/d(log p) of sum p (log p - log q), each log p taken as free: log_softmax's own backward ties them together
        return (difference + 1).mul_(policy.exp()).mul_(grads[0].unsqueeze(-1)), None
