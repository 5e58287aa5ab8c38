"""Sampled completions that are waiting to be trained on, as arrays of a micro-batch and as a file of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from engine.backends.mlx.batches import Row, filled
from engine.backends.mlx.sft import counted_arrays
from engine.backends.mlx.training import Arrays

BUFFER = "completions.safetensors"


@dataclass(frozen=True)
class Rollout:
    """A prompt's ids, the completion's, and for each token of the completion its advantage, its log-probability when
    it was sampled (None: the step that trains on it is the one that sampled it) and under the stage's start (None: no
    divergence in the objective)."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    advantages: np.ndarray
    old: np.ndarray | None = None
    reference: np.ndarray | None = None

    def row(self) -> Row:
        return Row([*self.prompt, *self.completion], [0] * len(self.prompt) + [1] * len(self.completion))


def token_shares(rollouts: Sequence[Rollout], loss: str, window: int, limit: int, items: float) -> np.ndarray:
    """Weight in the step's loss of every completion token (M,) of a micro-batch, as in TRL's GRPOTrainer.

    ``window``: micro-batches of the step. ``limit``: most tokens of a completion. ``items``: tokens of the whole
    generation, per micro-batch that it is cut into.
    """
    lengths = np.array([len(one.completion) for one in rollouts], np.float64)
    total = lengths.sum()
    whole = {"dapo": items, "bnpo": total, "dr_grpo": len(rollouts) * limit}
    share = 1 / (len(rollouts) * lengths) if loss == "grpo" else np.full(len(rollouts), 1 / max(1.0, whole[loss]))
    return np.repeat(share / window, lengths.astype(int)).astype(np.float32)


def rollout_arrays(rollouts: Sequence[Rollout], shares: np.ndarray) -> Arrays:
    """As ``counted_arrays``, with what the objective takes at each of those tokens."""
    arrays = counted_arrays([one.row() for one in rollouts])
    size = arrays["positions"].shape[0]
    arrays["advantages"] = filled(np.concatenate([one.advantages for one in rollouts]).astype(np.float32), size)
    arrays["shares"] = filled(shares, size)
    for name in ("old", "reference"):
        values = [getattr(one, name) for one in rollouts]
        if all(value is not None for value in values):
            arrays[name] = filled(np.concatenate(values).astype(np.float32), size)
    return arrays


def with_logprobs(rollouts: Sequence[Rollout], name: str, values: np.ndarray) -> list[Rollout]:
    """The rollouts with ``old`` or ``reference`` taken from values (M,) over all their tokens in turn."""
    ends = np.cumsum([len(one.completion) for one in rollouts])
    parts = np.split(values.astype(np.float32), ends[:-1])
    return [replace(one, **{name: part}) for one, part in zip(rollouts, parts, strict=True)]


def save_rollouts(folder: Path, generation: int, rollouts: Sequence[Rollout]) -> None:
    """Into a checkpoint: ids and figures one row after the other, and how long each is."""
    arrays = {"generation": np.array([generation], np.int64)}
    if rollouts:
        arrays["prompts"] = np.concatenate([np.array(one.prompt, np.int32) for one in rollouts])
        arrays["completions"] = np.concatenate([np.array(one.completion, np.int32) for one in rollouts])
        arrays["prompt_lengths"] = np.array([len(one.prompt) for one in rollouts], np.int32)
        arrays["completion_lengths"] = np.array([len(one.completion) for one in rollouts], np.int32)
        for name in ("advantages", "old", "reference"):
            values = [getattr(one, name) for one in rollouts]
            if all(value is not None for value in values):
                arrays[name] = np.concatenate(values).astype(np.float32)
    mx.save_safetensors(str(folder / BUFFER), {name: mx.array(value) for name, value in arrays.items()})


def load_rollouts(folder: Path) -> tuple[int, list[Rollout]]:
    """The generation's number and what is left of it."""
    loaded: Any = mx.load(str(folder / BUFFER))
    found = {name: np.array(value) for name, value in loaded.items()}
    generation = int(found.pop("generation")[0])
    if not found:
        return generation, []
    prompts = np.split(found["prompts"], np.cumsum(found["prompt_lengths"])[:-1])
    ends = np.cumsum(found["completion_lengths"])[:-1]
    parts = {
        name: np.split(found[name], ends) for name in ("completions", "advantages", "old", "reference") if name in found
    }
    return generation, [
        Rollout(
            tuple(prompt.tolist()),
            tuple(parts["completions"][place].tolist()),
            parts["advantages"][place],
            parts["old"][place] if "old" in parts else None,
            parts["reference"][place] if "reference" in parts else None,
        )
        for place, prompt in enumerate(prompts)
    ]
