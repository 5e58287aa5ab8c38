"""Directions in the residual stream: means of activations at the last prompt tokens, and contrasts of completions.

Sums are float64 and streamed, so that neither the number of prompts nor the depth costs memory, and the difference of
two nearly equal means keeps its digits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from engine.backends.interface import Conversation
from engine.backends.pytorch.divergence import backbone
from engine.backends.pytorch.layers import decoder_layers
from engine.backends.tokens import encode_completion, encode_prompt

BATCH = 32
MOST_PAIRS = 512
"""Most contrast pairs whose differences are kept for the principal component."""


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


def prompt_means(policy: Any, prompts: Sequence[Conversation], positions: int, progress: Any = None) -> torch.Tensor:
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
    return torch.stack([sums[layer].cpu() for layer in sorted(sums)]) / len(encoded)


def refusal_directions(harmful: torch.Tensor, harmless: torch.Tensor, orthogonal: bool) -> torch.Tensor:
    """Unit differences of two means (layers, positions, H), harmful minus harmless; ``orthogonal`` takes out what
    lies along the harmless mean, so that an edit leaves that alone."""
    difference = harmful - harmless
    if orthogonal:
        along = harmless / harmless.norm(dim=-1, keepdim=True)
        difference = difference - (difference * along).sum(-1, keepdim=True) * along
    return difference / difference.norm(dim=-1, keepdim=True).clamp(min=1e-30)


def direction_at(directions: torch.Tensor, depth: float, position: int) -> torch.Tensor:
    """The unit direction (H,) at a fraction of the depth: between two layers, their mean weighted by nearness."""
    place = depth * (directions.shape[0] - 1)
    low = min(int(place), directions.shape[0] - 1)
    high = min(low + 1, directions.shape[0] - 1)
    share = place - low
    mixed = (1 - share) * directions[low, position] + share * directions[high, position]
    return mixed / mixed.norm()


@dataclass(frozen=True)
class Contrast:
    """What contrast pairs say, for each layer: unit directions (layers, H) from the mean difference and from the first
    principal component of the differences (its sign that of the mean), and the mean norm (layers,) of the stream."""

    mean: torch.Tensor
    pca: torch.Tensor
    norms: torch.Tensor

    def form(self, name: str) -> torch.Tensor:
        return {"mean": self.mean, "pca": self.pca}[name]


def contrast(
    policy: Any,
    positive: Sequence[tuple[Conversation, str]],
    negative: Sequence[tuple[Conversation, str]],
    progress: Any = None,
) -> Contrast:
    """Mean residual stream over the positions that predict a completion, positive minus negative, pair by pair.

    Each row is (prompt, completion); the two sides of a pair may differ in either.
    """
    total = 2 * len(positive)
    sides = []
    for side, rows in enumerate((positive, negative)):
        encoded = [encode_completion(policy.tokenizer, prompt, text) for prompt, text in rows]
        sides.append(_completion_means(policy, encoded, side * len(positive), total, progress))
    (first, first_norms), (second, second_norms) = sides
    difference = first - second  # (n, layers, H)
    mean = difference.mean(0)
    mean = mean / mean.norm(dim=-1, keepdim=True)
    return Contrast(mean, _principal(difference[:MOST_PAIRS], mean), (first_norms + second_norms) / 2)


def _completion_means(
    policy: Any, rows: Sequence[tuple[list[int], list[int]]], before: int, total: int, progress: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, layers, H) means over each row's predicting positions and (layers,) mean norms, float64 on the CPU."""
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
                progress(before + done, total)
    stacked = torch.stack([torch.cat(means[layer]) for layer in sorted(means)], dim=1)
    back = torch.empty_like(stacked)
    back[torch.tensor(order)] = stacked  # in the order of the rows again
    return back, torch.tensor([norms[layer] / counted for layer in sorted(norms)], dtype=torch.float64)


def _principal(difference: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """First right singular vector of each layer's differences (n, layers, H), pointing with the mean.

    Not centred: with every pair taken in both orders the mean is zero anyway (Zou et al. 2023, arXiv:2310.01405).
    """
    found = []
    for layer in range(difference.shape[1]):
        rows = difference[:, layer]
        values, vectors = torch.linalg.eigh(rows @ rows.T)  # n by n: cheaper than H by H
        axis = rows.T @ vectors[:, -1]
        axis = axis / axis.norm()
        found.append(axis if axis.dot(mean[layer]) >= 0 else -axis)
    return torch.stack(found)


def _forward(model: Any, ids: torch.Tensor, mask: torch.Tensor) -> None:
    """The layers alone, without the head."""
    backbone(model)(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
        use_cache=False,
    )
