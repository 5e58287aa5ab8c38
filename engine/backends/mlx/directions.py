"""Means of the residual stream: at the last prompt tokens, and over the positions that predict a completion.

Sums are float64 (on the CPU, which alone has it) and streamed, so that neither the number of prompts nor the depth
costs memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from engine.backends.interface import Conversation
from engine.backends.mlx.batches import padded_ids
from engine.backends.mlx.hooks import Hook
from engine.backends.mlx.network import Network
from engine.backends.tokens import encode_completion, encode_prompt
from engine.interventions.directions import Side

BATCH = 32


@contextlib.contextmanager
def captured_layers(network: Network, keep: Callable[[int, mx.array], None]) -> Iterator[None]:
    """Call ``keep(layer, output (B, T, H))`` after every decoder layer while the context is open."""

    def after(index: int) -> Callable[[Any], Any]:
        def look(output: Any) -> Any:
            keep(index, output[0] if isinstance(output, tuple) else output)
            return output

        return look

    hooks = [Hook(layer, after(index)) for index, layer in enumerate(network.layers)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def prompt_means(policy: Any, prompts: Sequence[Conversation], positions: int, progress: Any = None) -> np.ndarray:
    """Mean residual stream after each layer at the last ``positions`` prompt tokens: (layers, positions, H), float64.

    Position -1, the last, is the one that predicts the completion's first token. Prompts shorter than ``positions``
    do not occur: the chat template alone is longer, and a shorter row would count its padding, so it is refused.
    """
    encoded = sorted((encode_prompt(policy.tokenizer, prompt) for prompt in prompts), key=len)
    if len(encoded[0]) < positions:
        raise ValueError(f"a prompt of {len(encoded[0])} tokens is shorter than the {positions} positions")
    sums: dict[int, Any] = {}
    places = mx.array(0)

    def keep(layer: int, output: mx.array) -> None:
        taken = output[mx.arange(output.shape[0])[:, None], places]  # (B, positions, H)
        with mx.stream(mx.cpu):
            total = taken.astype(mx.float64).sum(0)
            sums[layer] = total if layer not in sums else sums[layer] + total

    done = 0
    with policy.weights("policy") as network, captured_layers(network, keep):
        for start in range(0, len(encoded), BATCH):
            batch = encoded[start : start + BATCH]
            places = mx.array(np.array([range(len(row) - positions, len(row)) for row in batch], np.int32))
            network.hidden(padded_ids(batch))
            mx.eval(list(sums.values()))
            done += len(batch)
            if progress:
                progress(done, len(encoded))
    return np.stack([np.array(sums[layer]) for layer in sorted(sums)]) / len(encoded)


def completion_means(policy: Any, completions: Sequence[tuple[Conversation, str]], progress: Any = None) -> Side:
    """(n, layers, H) means over the positions that predict each row's completion and (layers,) mean norms, float64."""
    rows = [encode_completion(policy.tokenizer, prompt, text) for prompt, text in completions]
    order = sorted(range(len(rows)), key=lambda index: sum(map(len, rows[index])))
    means: dict[int, list[mx.array]] = {}
    norms: dict[int, Any] = {}
    mask = mx.array(0)

    def keep(layer: int, output: mx.array) -> None:
        with mx.stream(mx.cpu):
            wide = output.astype(mx.float64)
            inside = mask.astype(mx.float64)
            means.setdefault(layer, []).append((wide * inside[..., None]).sum(1) / inside.sum(1, keepdims=True))
            norms[layer] = norms.get(layer, 0.0) + (mx.sqrt((wide * wide).sum(-1)) * inside).sum()

    counted, done = 0, 0
    with policy.weights("policy") as network, captured_layers(network, keep):
        for start in range(0, len(order), BATCH):
            batch = [rows[index] for index in order[start : start + BATCH]]
            ids = padded_ids([prompt + completion for prompt, completion in batch])
            inside = np.zeros(ids.shape, np.float32)
            for row, (prompt, completion) in enumerate(batch):
                inside[row, len(prompt) - 1 : len(prompt) + len(completion) - 1] = 1
            counted += int(inside.sum())
            mask = mx.array(inside)
            network.hidden(ids)
            mx.eval([one[-1] for one in means.values()], list(norms.values()))
            done += len(batch)
            if progress:
                progress(done)
    stacked = np.stack([np.concatenate([np.array(one) for one in means[layer]]) for layer in sorted(means)], axis=1)
    back = np.empty_like(stacked)
    back[order] = stacked  # in the order of the rows again
    return back, np.array([float(norms[layer].item()) / counted for layer in sorted(norms)])
