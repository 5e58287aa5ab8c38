"""Intervals and tests behind the gates: small, exact where that is cheap, and free of dependencies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

Z95 = NormalDist().inv_cdf(0.975)


def wilson(successes: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Wilson score interval of a rate (Wilson 1927). ``(0, 1)`` when ``n`` is 0: nothing is known."""
    if n <= 0:
        return 0.0, 1.0
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie in 0..{n}, got {successes}")
    rate = successes / n
    centre = rate + z * z / (2 * n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def newcombe(before: tuple[int, int], after: tuple[int, int]) -> tuple[float, float]:
    """95 % interval of ``after - before`` for two rates given as ``(successes, n)`` (Newcombe 1998, method 10).

    The rows may be the same before and after; treating them as independent makes the interval wider, never narrower
    than it should be for answers that are positively correlated, so a gain it calls significant is one.
    """
    (k1, n1), (k2, n2) = before, after
    if n1 <= 0 or n2 <= 0:
        return -1.0, 1.0
    rate1, rate2 = k1 / n1, k2 / n2
    low1, high1 = wilson(k1, n1)
    low2, high2 = wilson(k2, n2)
    difference = rate2 - rate1
    return (
        difference - math.hypot(rate2 - low2, high1 - rate1),
        difference + math.hypot(high2 - rate2, rate1 - low1),
    )


def mean_interval(values: Sequence[float], z: float = Z95) -> tuple[float, float, float]:
    """Mean of ``values`` and its 95 % interval by the normal approximation. ``(nan, nan, nan)`` for no values."""
    n = len(values)
    if n == 0:
        return math.nan, math.nan, math.nan
    mean = math.fsum(values) / n
    if n == 1:
        return mean, -math.inf, math.inf
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = z * math.sqrt(variance / n)
    return mean, mean - half, mean + half


def falling_trend(values: Sequence[float]) -> float:
    """One-sided p value that ``values`` fall with their position (Mann-Kendall, exact under no ties; Mann 1945).

    Non-finite values count as the highest: a loss that became NaN is no falling loss. Below three values nothing
    can be significant and 1.0 is returned.
    """
    points = [value if math.isfinite(value) else math.inf for value in values]
    n = len(points)
    if n < 3:
        return 1.0
    ascents = sum(points[i] <= points[j] for i in range(n) for j in range(i + 1, n))  # a tie is no fall
    return _share_with_at_most(ascents, n)


def rising_trend(values: Sequence[float]) -> float:
    """One-sided p value that ``values`` rise with their position; the mirror of :func:`falling_trend`."""
    return falling_trend([-value if math.isfinite(value) else math.inf for value in values])


def _share_with_at_most(inversions: int, n: int) -> float:
    """Share of the permutations of ``n`` things with at most ``inversions`` inversions (Mahonian numbers)."""
    if n > 60:  # exact counts stay cheap far beyond this, but nothing is gained: the normal limit agrees to 1e-4
        mean = n * (n - 1) / 4
        deviation = math.sqrt(n * (n - 1) * (2 * n + 5) / 72)
        return NormalDist().cdf((inversions + 0.5 - mean) / deviation)
    counts = [1]
    for size in range(2, n + 1):
        longer = [0] * (len(counts) + size - 1)
        for have, count in enumerate(counts):
            for more in range(size):
                longer[have + more] += count
        counts = longer
    return sum(counts[: inversions + 1]) / math.factorial(n)
