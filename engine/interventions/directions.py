"""Directions in the residual stream, from the means that a backend has read off: all in float64, so that the difference
of two nearly equal means keeps its digits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MOST_PAIRS = 512
"""Most contrast pairs whose differences are kept for the principal component."""


def refusal_directions(harmful: np.ndarray, harmless: np.ndarray, orthogonal: bool) -> np.ndarray:
    """Unit differences of two means (layers, positions, H), harmful minus harmless; ``orthogonal`` takes out what
    lies along the harmless mean, so that an edit leaves that alone."""
    difference = harmful - harmless
    if orthogonal:
        along = harmless / _length(harmless)
        difference = difference - (difference * along).sum(-1, keepdims=True) * along
    return difference / np.maximum(_length(difference), 1e-30)


def direction_at(directions: np.ndarray, depth: float, position: int) -> np.ndarray:
    """The unit direction (H,) at a fraction of the depth: between two layers, their mean weighted by nearness."""
    place = depth * (directions.shape[0] - 1)
    low = min(int(place), directions.shape[0] - 1)
    high = min(low + 1, directions.shape[0] - 1)
    share = place - low
    mixed = (1 - share) * directions[low, position] + share * directions[high, position]
    return mixed / np.linalg.norm(mixed)


@dataclass(frozen=True)
class Contrast:
    """What contrast pairs say, for each layer: unit directions (layers, H) from the mean difference and from the first
    principal component of the differences (its sign that of the mean), and the mean norm (layers,) of the stream."""

    mean: np.ndarray
    pca: np.ndarray
    norms: np.ndarray

    def form(self, name: str) -> np.ndarray:
        return {"mean": self.mean, "pca": self.pca}[name]


Side = tuple[np.ndarray, np.ndarray]
"""One side of the pairs: means (n, layers, H) over the positions that predict each row's completion, and the mean norm
(layers,) of the stream at those positions."""


def contrast_of(positive: Side, negative: Side) -> Contrast:
    """Positive minus negative, pair by pair."""
    difference = positive[0] - negative[0]  # (n, layers, H)
    mean = difference.mean(0)
    mean = mean / _length(mean)
    return Contrast(mean, _principal(difference[:MOST_PAIRS], mean), (positive[1] + negative[1]) / 2)


def _principal(difference: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """First right singular vector of each layer's differences (n, layers, H), pointing with the mean.

    Not centred: with every pair taken in both orders the mean is zero anyway (Zou et al. 2023, arXiv:2310.01405).
    """
    found = []
    for layer in range(difference.shape[1]):
        rows = difference[:, layer]
        _, vectors = np.linalg.eigh(rows @ rows.T)  # n by n: cheaper than H by H
        axis = rows.T @ vectors[:, -1]
        axis = axis / np.linalg.norm(axis)
        found.append(axis if axis @ mean[layer] >= 0 else -axis)
    return np.stack(found)


def _length(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows, axis=-1, keepdims=True)
