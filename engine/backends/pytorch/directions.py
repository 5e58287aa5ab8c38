"""Means of the residual stream: at the last prompt tokens, and over the positions that predict a completion.

Sums are float64 and streamed, so that neither the number of prompts nor the depth costs memory, and the difference of
two nearly equal means keeps its digits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from engine.backends.interface import Conversation
from engine.backends.pytorch.divergence import backbone
from engine.backends.pytorch.layers import decoder_layers
from engine.backends.tokens import encode_completion, encode_prompt
from engine.interventions.directions import Side

BATCH = 32


@contextlib.contextmanager
def captured_layers(model: Any, keep: Callable[[int, torch.Tensor], None]) -> Iterator[None]:
    """Call ``keep(layer, output (B, T, H))`` after every decoder layer while the context is open."""

    def hook(index: int) -> Any:
        def after(_module: Any, _inputs: Any, output: Any) -> None:
            keep(index, (output[0] if isinstance(output, tuple) else output).detach())

        return after

    handles = [layer.register_forward_hook(hook(index)) for index, layer in enumerate(decoder_layers(model))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """Float64; on the CPU where the device has none (Apple's)."""
    return tensor.cpu().double() if tensor.device.type == "mps" else tensor.double()


def prompt_means(policy: Any, prompts: Sequence[Conversation], positions: int, progress: Any = None) -> np.ndarray:
    """Mean residual stream after each layer at the last ``positions`` prompt tokens: (layers, positions, H), float64.

    Position -1, the last, is the one that predicts the completion's first token. Prompts shorter than ``positions``
    do not occur: the chat template alone is longer, and a shorter row would count its padding, so it is refused.
    """
    encoded = sorted((encode_prompt(policy.tokenizer, prompt) for prompt in prompts), key=len)
    if len(encoded[0]) < positions:
        raise ValueError(f"a prompt of {len(encoded[0])} tokens is shorter than the {positions} positions")
    sums: dict[int, torch.Tensor] = {}

    def keep(layer: int, output: torch.Tensor) -> None:
        total = _wide(output[:, -positions:]).sum(0)
        sums[layer] = total if layer not in sums else sums[layer] + total

    done = 0
    with policy.weights("policy") as model, captured_layers(model, keep):
        for start in range(0, len(encoded), BATCH):
            ids, mask = policy._pad_left(encoded[start : start + BATCH])
            _forward(model, ids, mask)
            done += len(ids)
            if progress:
                progress(done, len(encoded))
    return torch.stack([sums[layer].cpu() for layer in sorted(sums)]).numpy() / len(encoded)


def completion_means(policy: Any, completions: Sequence[tuple[Conversation, str]], progress: Any = None) -> Side:
    """(n, layers, H) means over the positions that predict each row's completion and (layers,) mean norms, float64."""
    rows = [encode_completion(policy.tokenizer, prompt, text) for prompt, text in completions]
    order = sorted(range(len(rows)), key=lambda index: sum(map(len, rows[index])))
    means: dict[int, list[torch.Tensor]] = {}
    norms: dict[int, float] = {}
    mask: torch.Tensor = torch.zeros(0)

    def keep(layer: int, output: torch.Tensor) -> None:
        wide = _wide(output)
        inside = mask.to(wide.device).unsqueeze(-1)
        means.setdefault(layer, []).append(((wide * inside).sum(1) / inside.sum(1)).cpu())
        norms[layer] = norms.get(layer, 0.0) + float((wide.norm(dim=-1) * inside.squeeze(-1)).sum())

    counted, done = 0.0, 0
    with policy.weights("policy") as model, captured_layers(model, keep):
        for start in range(0, len(order), BATCH):
            batch = [rows[index] for index in order[start : start + BATCH]]
            ids, attention = policy._pad_left([prompt + completion for prompt, completion in batch])
            longest = ids.shape[1]
            mask = torch.zeros(ids.shape, dtype=torch.float64)
            for row, (_, completion) in enumerate(batch):
                mask[row, longest - len(completion) - 1 : longest - 1] = 1
            counted += float(mask.sum())
            _forward(model, ids, attention)
            done += len(batch)
            if progress:
                progress(done)
    stacked = torch.stack([torch.cat(means[layer]) for layer in sorted(means)], dim=1)
    back = torch.empty_like(stacked)
    back[torch.tensor(order)] = stacked  # in the order of the rows again
    return back.numpy(), np.array([norms[layer] / counted for layer in sorted(norms)])


def _forward(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> None:
    """The layers alone, without the head."""
    backbone(model)(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        use_cache=False,
    )
