"""What a row of numbers does: its trend, its value smoothed, and a part of it thinned to what a chart can show."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Literal

Trend = Literal["rising", "falling", "steady", ""]
NO_BIAS = 2.0**-54
"""What of one is lost in a float: 1 - this is 1."""
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


def moving_average(values: Sequence[float], weight: float) -> list[float]:
    """The exponential moving average of ``values``, as many as came in; ``weight`` in [0, 1) is what the past counts.

    Debiased as in Adam (Kingma & Ba 2015, section 3): divided by 1 - weight^n, so that the first values are not pulled
    to zero. What is not finite leaves a gap (NaN) and does not enter the average.
    """
    if not 0 <= weight < 1:
        raise ValueError(f"weight {weight} is not in [0, 1)")
    average, bias, found = 0.0, 1.0, []
    finite, rest = math.isfinite, 1 - weight
    for value in values:
        if not finite(value):
            found.append(math.nan)
            continue
        average = weight * average + rest * value
        bias *= weight
        found.append(average / (1 - bias))
        if bias < NO_BIAS:
            break
    if len(found) < len(values):  # most of a long row: nothing is left to debias
        left = values[len(found) :]
        if math.isfinite(sum(left)):
            return found + [average := weight * average + rest * value for value in left]
        for value in left:
            if finite(value):
                average = weight * average + rest * value
                found.append(average)
            else:
                found.append(math.nan)
    return found


def part(
    steps: Sequence[int], values: Sequence[float], first: int, last: int, at_most: int
) -> tuple[list[int], list[float]]:
    """The points from step ``first`` to ``last``, thinned to ``at_most`` means of neighbours that stand at the last of them.

    What is not finite is left out of a mean, unless nothing else is among the neighbours.
    """
    begin, end = bisect_left(steps, first), bisect_right(steps, last)
    size = max(1, math.ceil((end - begin) / max(1, at_most)))
    if size == 1:
        return list(steps[begin:end]), list(values[begin:end])
    found_steps, found_values = [], []
    for start in range(begin, end, size):
        stop = min(end, start + size)
        total = sum(values[start:stop])  # the window may be of a million
        if not math.isfinite(total):
            finite = [value for value in values[start:stop] if math.isfinite(value)]
            total = math.fsum(finite) / len(finite) * (stop - start) if finite else values[start]
        found_steps.append(steps[stop - 1])
        found_values.append(total / (stop - start))
    return found_steps, found_values


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
