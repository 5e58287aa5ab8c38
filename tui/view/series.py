"""What a row of numbers does: its trend, and its value smoothed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

Trend = Literal["rising", "falling", "steady", ""]
WINDOW = 20
"""Values on each side of the comparison that a trend is read from."""


def trend(values: Sequence[float]) -> Trend:
    """The mean of the last values against those before them; steady within two standard errors of the difference.

    Empty when there are too few to say anything.
    """
    recent = [value for value in values[-2 * WINDOW :] if math.isfinite(value)]
    half = len(recent) // 2
    if half < 3:
        return ""
    before, after = recent[:half], recent[half:]
    change = _mean(after) - _mean(before)
    error = math.sqrt(_variance(before) / len(before) + _variance(after) / len(after))
    if abs(change) <= 2 * error or change == 0:
        return "steady"
    return "rising" if change > 0 else "falling"


def smoothed(values: Sequence[float], n: int = 5) -> float | None:
    """Mean of the last ``n`` finite values: what a gauge shows of a gauge that jumps from step to step."""
    last = [value for value in values[-n:] if math.isfinite(value)]
    return _mean(last) if last else None


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
