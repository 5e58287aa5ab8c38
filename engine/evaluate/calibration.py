"""How far a stated confidence can be trusted: ECE, Brier score, reliability, and the temperatures that mend it."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.evaluate.measurement import Measurement
from engine.evaluate.statistics import Z95

BINS = 15
DEFINED_ON = 1000
"""Answers from which on a figure is called the ECE: each bin then holds 66 or more."""
TEMPERATURES = tuple(2.0 ** (k / 4) for k in range(-8, 21))
"""1/4 to 32 in steps of 19 %: what a confidence temperature is chosen from."""
AT_ONE = TEMPERATURES.index(1.0)
LEAST_ROWS = 100
"""Answers of one length below which it gets no temperature of its own."""
WORTH_IT = 0.01
"""Relative gain in cross-validated log-loss that temperatures by length must bring over a single one."""
RESAMPLES = 400
By = Literal["auto", "one", "length"]


@dataclass(frozen=True)
class Answered:
    """One answer: whether it is right, its number of tokens, and its log-probability in nats at each of TEMPERATURES."""

    correct: bool
    tokens: int
    logprobs: tuple[float, ...]


def confidence(answer: Answered, settings: Mapping[str, Any] | None) -> float:
    """Probability of the whole answer under the settings' temperature (at 1 without settings)."""
    return math.exp(min(0.0, answer.logprobs[_place(answer, settings)]))


def _place(answer: Answered, settings: Mapping[str, Any] | None) -> int:
    if not settings:
        return AT_ONE
    temperature = settings.get("by_length", {}).get(str(answer.tokens), settings["temperature"])
    return min(range(len(TEMPERATURES)), key=lambda place: abs(math.log(TEMPERATURES[place] / temperature)))


# ---- figures -----------------------------------------------------------------------------------------------------------


def reliability(
    confidences: Sequence[float], correct: Sequence[bool], bins: int = BINS
) -> list[tuple[float, float, int]]:
    """(mean confidence, accuracy, n) of bins of equal mass, from the least confident up. Ties stay in their order."""
    order = sorted(range(len(confidences)), key=lambda index: confidences[index])
    found = []
    for number in range(bins):
        part = order[number * len(order) // bins : (number + 1) * len(order) // bins]
        if part:
            mean = math.fsum(confidences[index] for index in part) / len(part)
            found.append((mean, sum(correct[index] for index in part) / len(part), len(part)))
    return found


def ece(confidences: Sequence[float], correct: Sequence[bool], bins: int = BINS) -> float:
    """Expected calibration error over bins of equal mass (Guo et al. 2017, eq. 3; equal mass: Nixon et al. 2019)."""
    parts = reliability(confidences, correct, bins)
    return math.fsum(n * abs(mean - accuracy) for mean, accuracy, n in parts) / len(confidences)


def chance(n: int, bins: int = BINS) -> float:
    """The ECE that ``n`` answers of a perfectly calibrated model have on average, by chance alone, where each is right with
    probability 1/2: of m answers in a bin the share right is off by comb(m - 1, m // 2) / 2^m in the mean (the binomial's
    mean deviation; De Moivre). Nearly as much as it can be: the surer the answers, the less."""
    sizes = [(number + 1) * n // bins - number * n // bins for number in range(bins)]
    return math.fsum(m * math.comb(m - 1, m // 2) / 2**m for m in sizes if m) / n


def brier(confidences: Sequence[float], correct: Sequence[bool]) -> float:
    """Mean squared difference of confidence and correctness (Brier 1950)."""
    return math.fsum((p - right) ** 2 for p, right in zip(confidences, correct, strict=True)) / len(confidences)


def measure_calibration(answers: Sequence[Answered], settings: Mapping[str, Any] | None) -> list[Measurement]:
    """``ece`` with its bins in the detail, and ``brier`` with its interval; n in answers."""
    stated = [confidence(answer, settings) for answer in answers]
    correct = [answer.correct for answer in answers]
    losses = [(p - right) ** 2 for p, right in zip(stated, correct, strict=True)]
    mean = math.fsum(losses) / len(losses)
    half = Z95 * math.sqrt(math.fsum((x - mean) ** 2 for x in losses) / max(1, len(losses) - 1) / len(losses))
    return [
        Measurement("ece", ece(stated, correct), len(answers), detail={"bins": reliability(stated, correct)}),
        Measurement("brier", mean, len(answers), max(0.0, mean - half), mean + half),
        Measurement("confidence", math.fsum(stated) / len(stated), len(answers)),
    ]


def changes(
    before: Sequence[Answered],
    settings_before: Mapping[str, Any] | None,
    after: Sequence[Answered],
    settings_after: Mapping[str, Any] | None,
    seed: int,
) -> list[Measurement]:
    """``ece_cut`` (relative) and ``brier_change`` from one set of answers to another, with bootstrap intervals."""

    def figures(first: Sequence[Answered], second: Sequence[Answered]) -> tuple[float, float]:
        sides = []
        for answers, settings in ((first, settings_before), (second, settings_after)):
            stated, correct = [confidence(a, settings) for a in answers], [a.correct for a in answers]
            sides.append((ece(stated, correct), brier(stated, correct)))
        (ece_before, brier_before), (ece_after, brier_after) = sides
        return (1 - ece_after / ece_before if ece_before else 0.0), brier_after - brier_before

    value = figures(before, after)
    draw = random.Random(seed)
    same = len(before) == len(after)
    drawn = []
    for _ in range(RESAMPLES):
        places = [draw.randrange(len(before)) for _ in before]
        others = places if same else [draw.randrange(len(after)) for _ in after]
        drawn.append(figures([before[i] for i in places], [after[i] for i in others]))
    measured = []
    for place, name in enumerate(("ece_cut", "brier_change")):
        values = sorted(one[place] for one in drawn)
        low, high = values[int(0.025 * RESAMPLES)], values[int(0.975 * RESAMPLES) - 1]
        says = f"95 % interval {low:+.3g} to {high:+.3g}"
        measured.append(Measurement(name, value[place], len(after), low, high, {"says": says}))
    return measured


# ---- fitting -----------------------------------------------------------------------------------------------------------


def fit_confidence(answers: Sequence[Answered], by: By = "auto") -> dict[str, Any]:
    """The temperature with the least log-loss of correctness (Guo et al. 2017, section 4.2); by answer length where
    that is asked for or, with ``auto``, where two-fold cross-validation says that it is worth it.

    Returns the lineage's confidence settings: ``{"temperature": T}`` and, by length, ``{"by_length": {tokens: T}}``.
    """
    one: dict[str, Any] = {"temperature": _best(answers)}
    if by == "one":
        return one
    if by == "length":
        return _by_length(answers)
    halves = [answers[0::2], answers[1::2]]
    if min(map(len, halves)) < LEAST_ROWS:
        return one

    def crossed(fit: Callable[[Sequence[Answered]], dict[str, Any]]) -> float:
        return _log_loss(halves[1], fit(halves[0])) + _log_loss(halves[0], fit(halves[1]))

    single = crossed(lambda part: {"temperature": _best(part)})
    return _by_length(answers) if crossed(_by_length) < (1 - WORTH_IT) * single else one


def _by_length(answers: Sequence[Answered]) -> dict[str, Any]:
    groups: dict[int, list[Answered]] = {}
    for answer in answers:
        groups.setdefault(answer.tokens, []).append(answer)
    return {
        "temperature": _best(answers),
        "by_length": {str(n): _best(group) for n, group in sorted(groups.items()) if len(group) >= LEAST_ROWS},
    }


def _best(answers: Sequence[Answered]) -> float:
    return min(TEMPERATURES, key=lambda temperature: _log_loss(answers, {"temperature": temperature}))


def _log_loss(answers: Sequence[Answered], settings: Mapping[str, Any]) -> float:
    total = 0.0
    for answer in answers:
        stated = min(1 - 1e-6, max(1e-6, confidence(answer, settings)))
        total -= math.log(stated if answer.correct else 1 - stated)
    return total


# ---- a picture ---------------------------------------------------------------------------------------------------------


def diagram(bins: Sequence[Sequence[float]], width: int = 40) -> list[str]:
    """A reliability diagram as text: a line for each bin, ``|`` at its confidence, a bar up to its accuracy."""
    lines = [f"{'confidence':>10} {'right':>6} {'n':>5}  0{' ' * (width - 2)}1"]
    for stated, right, n in bins:
        row = ["█" if place < round(right * width) else "·" for place in range(width)]
        row[min(width - 1, round(stated * (width - 1)))] = "|"
        lines.append(f"{stated:>10.3f} {right:>6.3f} {int(n):>5}  {''.join(row)}")
    return lines
