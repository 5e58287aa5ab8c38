"""Rows of token ids as padded arrays, and the places in them that a loss or a score looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np


@dataclass(frozen=True)
class Row:
    """Token ids, and for each whether it counts (1) or only conditions (0)."""

    ids: Sequence[int]
    counted: Sequence[int]


def padded_length(length: int) -> int:
    """Length to pad to: few different ones, so that few step functions are compiled, at a cost of little padding."""
    grain = 16 if length <= 256 else 64
    return -(-length // grain) * grain


def padded_places(places: int) -> int:
    """The same for the number of counted tokens in a batch: eight sizes for each power of two."""
    grain = max(16, 1 << max(0, (places - 1).bit_length() - 3))
    return max(1, -(-places // grain)) * grain


def padded_ids(rows: Sequence[Sequence[int]], fill: int = 0) -> mx.array:
    """(B, T) ids, padded on the right."""
    length = padded_length(max(map(len, rows)))
    return mx.array(np.array([[*row, *[fill] * (length - len(row))] for row in rows], dtype=np.int32))


def predicted(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(positions, targets, row)`` of every counted token: where in the flattened (B * T) the hidden state that
    predicts it lies, its id, and the row it is in. A row's first token is predicted by nothing and left out."""
    length = padded_length(max(len(row.ids) for row in rows))
    positions, targets, owner = [], [], []
    for number, row in enumerate(rows):
        for place in range(1, len(row.ids)):
            if row.counted[place]:
                positions.append(number * length + place - 1)
                targets.append(row.ids[place])
                owner.append(number)
    return np.array(positions, np.int32), np.array(targets, np.int32), np.array(owner, np.int32)


def filled(values: np.ndarray, size: int, fill: int | float = 0) -> mx.array:
    """A 1-D array filled up to ``size``."""
    return mx.array(np.concatenate([values, np.full(size - len(values), fill, values.dtype)]))


def thinned(places: int, at_most: int) -> np.ndarray:
    """Boolean (places,) mask of about ``at_most`` of them, evenly spread: the live gauges are estimates by design, and
    a fixed stride draws no random number."""
    stride = max(1, -(-places // at_most))
    return np.arange(places) % stride == 0
