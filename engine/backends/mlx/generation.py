"""Batched generation on mlx-lm's caches: prompts padded on the left, rows leave the batch as they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import KVCache, RotatingKVCache, make_prompt_cache

from engine.backends.mlx.device import check_memory
from engine.backends.mlx.interventions import Interventions
from engine.backends.mlx.network import Network

GENERATION_BATCH = 64
PREFILL = 1024
"""Positions of the prompts that are read at once: bounds the memory of long prompts."""
SHRINK_BELOW = 0.75
"""Share of rows still writing below which the others are taken out of the batch; taking out copies the cache."""


def generate(
    network: Network,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    stops: set[int],
    progress: Callable[[int, int], None] | None = None,
    interventions: Interventions | None = None,
) -> list[list[int]]:
    """Token ids of one completion for each prompt, in order; the stop token is included where one was written.

    Temperature 0 is greedy. Sampling draws from keys of its own, so that no other random state moves. Vectors among
    the ``interventions`` are told which token is being predicted.
    """
    acting = interventions or Interventions()
    results: list[list[int]] = [[] for _ in prompts]
    key = mx.random.key(seed)
    done = 0
    for batch in _batches(network, prompts):
        key, own = mx.random.split(key)
        asked = [prompts[index] for index in batch]
        with acting.batch():
            rows = _write(network, asked, max_new_tokens, temperature, own, stops, acting)
        check_memory()
        for index, row in zip(batch, rows, strict=True):
            results[index] = row
        done += len(batch)
        if progress:
            progress(done, len(prompts))
    return results


def _batches(network: Network, prompts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Indices of like length together. Models whose state cannot be padded (recurrent ones) get equal lengths only."""
    padded = all(isinstance(one, KVCache | RotatingKVCache) for one in make_prompt_cache(network.model))
    batch: list[int] = []
    for index in sorted(range(len(prompts)), key=lambda index: len(prompts[index])):
        other_length = batch and not padded and len(prompts[index]) != len(prompts[batch[0]])
        if len(batch) == GENERATION_BATCH or other_length:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _write(
    network: Network,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    temperature: float,
    key: mx.array,
    stops: set[int],
    acting: Interventions,
) -> list[list[int]]:
    longest = max(map(len, prompts))
    padding = [longest - len(prompt) for prompt in prompts]
    cache = _cache(network, padding)
    ids = mx.array(np.array([[0] * pad + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)]))
    for start in range(0, longest - 1, PREFILL):
        network.hidden(ids[:, start : min(start + PREFILL, longest - 1)], cache)
        mx.eval([one.state for one in cache])
    written: list[list[int]] = [[] for _ in prompts]
    rows = list(range(len(prompts)))
    """Which prompt each row of the batch belongs to."""
    keys = mx.random.split(key, max_new_tokens)
    acting.predict(0)
    token = _next(network, ids[:, -1:], cache, temperature, keys[0])
    mx.async_eval(token)
    open_rows = set(rows)
    for step in range(1, max_new_tokens + 1):
        following = None
        if step < max_new_tokens:  # on its way while the host looks at this one
            acting.predict(step)
            following = _next(network, token[:, None], cache, temperature, keys[step])
            mx.async_eval(following)
        for row, value in zip(rows, token.tolist(), strict=True):
            if row in open_rows:
                written[row].append(value)
                if value in stops:
                    open_rows.discard(row)
        if following is None or not open_rows:
            break
        if len(open_rows) < SHRINK_BELOW * len(rows):
            keep = [place for place, row in enumerate(rows) if row in open_rows]
            acting.keep(mx.array(keep))
            for one in cache:
                one.filter(mx.array(keep))
            rows = [rows[place] for place in keep]
            following = following[mx.array(keep)]
        token = following
    return written


def _next(network: Network, ids: mx.array, cache: Any, temperature: float, key: mx.array) -> mx.array:
    """The next token (B,) after ids (B, n)."""
    logits = network.logits(network.hidden(ids, cache)[:, -1])
    if not temperature:
        return logits.argmax(-1)
    return mx.random.categorical(logits / temperature, key=key)


def _cache(network: Network, padding: list[int]) -> list[Any]:
    """mlx-lm's cache for a batch of prompts with that much padding on their left."""
    caches = [make_prompt_cache(network.model) for _ in padding]
    merged = [layers[0].merge(list(layers)) for layers in zip(*caches, strict=True)]
    if any(padding):
        for one in merged:
            one.prepare(left_padding=padding)
    return merged
