"""What a stage's own figures look like: how far its confidence can be trusted, and the front of its search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from engine.runs.state import StageState
from tui.view.canvas import Row, Scale
from tui.view.scatter import Point, scatter

GOOD = 0.01
"""Share of refusals from which on the search prefers the lower KL (engine/stages/abliteration.py)."""

Bin = tuple[float, float, int]
"""Mean confidence, accuracy, n."""


@dataclass(frozen=True)
class Reliability:
    """Bins of equal mass of the held-out answers before and after the stage; either may be missing."""

    before: list[Bin]
    after: list[Bin]
    words: str


@dataclass(frozen=True)
class Tried:
    """A trial of a search. ``refusals`` is a share, 0 to 1."""

    number: int
    kl: float
    refusals: float
    dropped: bool


@dataclass(frozen=True)
class Front:
    trials: list[Tried]
    best: list[Tried]
    """The Pareto front, by rising KL."""
    picked: int | None
    final: bool
    """False: the search goes on, and the pick is what it would be now."""
    words: str


@dataclass(frozen=True)
class Pictures:
    reliability: Reliability | None = None
    front: Front | None = None


def pictures_of(stage: StageState | None) -> Pictures:
    if stage is None:
        return Pictures()
    return Pictures(_reliability(stage), _front(stage))


# ---- reliability -------------------------------------------------------------------------------------------------------


def _reliability(stage: StageState) -> Reliability | None:
    found = stage.metrics.get("ece", {})
    sides = [found.get("before"), found.get("after")]
    bins = [
        [(float(stated), float(right), int(n)) for stated, right, n in event.detail.get("bins", ())] if event else []
        for event in sides
    ]
    if not any(bins):
        return None
    figures = [
        f"ECE {when} {float(event.value):.3f}" for when, event in zip(("before", "after"), sides, strict=True) if event
    ]
    n = next(event.n for event in reversed(sides) if event)
    return Reliability(bins[0], bins[1], f"{', '.join(figures)} (n {n}, {max(map(len, bins))} bins of equal mass)")


def draw_reliability(data: Reliability, width: int, height: int, ascii_only: bool = False) -> list[Row]:
    """Accuracy over confidence: a model whose word can be trusted has its points on the diagonal."""
    unit = Scale(0.0, 1.0)
    points = [Point(stated, right, "○", "o", "before") for stated, right, _ in data.before]
    points += [Point(stated, right, "●", "x", "after") for stated, right, _ in data.after]
    lines = [("target", ((0.0, 0.0), (1.0, 1.0)))]
    return scatter(points, width, height, unit, unit, lines=lines, ascii_only=ascii_only)


# ---- the front of a search -----------------------------------------------------------------------------------------------


def _front(stage: StageState) -> Front | None:
    columns = [stage.series.get(name) for name in ("kl", "refusal_rate", "dropped")]
    if any(series is None or not series.values for series in columns):
        return None
    kl, refusals, dropped = (series.values for series in columns if series is not None)
    trials = [
        Tried(number, divergence, rate, bool(gone))
        for number, (divergence, rate, gone) in enumerate(zip(kl, refusals, dropped, strict=False))
    ]
    best = front_of(trials)
    told = stage.metrics.get("pareto_front", {}).get("after")
    table = told.detail.get("table", []) if told else []
    final = next((int(row["trial"]) for row in table if row.get("picked")), None)
    now = next((trial for trial in best if trial.refusals <= GOOD), best[-1] if best else None)
    picked = final if final is not None else now.number if now else None
    gone = sum(trial.dropped for trial in trials)
    words = f"{len(trials)} trials, {gone} dropped for their KL, {len(best)} on the front"
    chosen = next((trial for trial in trials if trial.number == picked), None)
    if chosen:
        word = "picked" if final is not None else "would pick"
        words += f"; {word} trial {chosen.number}: refusals {chosen.refusals:.1%}, KL {chosen.kl:.3g}"
    return Front(trials, best, picked, final is not None, words)


def front_of(trials: Sequence[Tried]) -> list[Tried]:
    """Each has fewer refusals than all with less KL."""
    found: list[Tried] = []
    for trial in sorted(trials, key=lambda trial: (trial.kl, trial.refusals, trial.number)):
        if not trial.dropped and math.isfinite(trial.kl) and (not found or trial.refusals < found[-1].refusals):
            found.append(trial)
    return found


def draw_front(data: Front, width: int, height: int, ascii_only: bool = False) -> list[Row]:
    """Refusals over KL (logarithmic): ``·`` tried, ``o`` on the front, the pick marked. Dropped trials are left out."""
    shown = [trial for trial in data.trials if not trial.dropped and math.isfinite(trial.kl)]
    if not shown:
        return [[("every trial was dropped for its KL".ljust(width)[:width], "axis")]] + [[(" " * width, "")]] * (
            height - 1
        )
    positive = [trial.kl for trial in shown if trial.kl > 0] or [1.0]
    low, high = min(positive), max(positive)
    x = Scale(low / 1.2, high * 1.2, True)

    def at(trial: Tried) -> tuple[float, float]:
        return max(trial.kl, x.low), trial.refusals

    points = [Point(*at(trial), "·", ".", "raw") for trial in shown]
    points += [Point(*at(trial), "o", "o", "line") for trial in data.best]
    points += [Point(*at(trial), "◆", "X", "after") for trial in shown if trial.number == data.picked]
    corners: list[tuple[float, float]] = []
    for trial in data.best:  # a staircase: what is above and right of it is worse in both
        if corners:
            corners.append((at(trial)[0], corners[-1][1]))
        corners.append(at(trial))
    return scatter(points, width, height, x, Scale(0.0, 1.0), lines=[("target", corners)], ascii_only=ascii_only)
