"""Two comparisons over seeds, with real runs of library recipes on the lab: hours, not minutes.

    python -m tests.bench.studies cpo FOLDER [SEEDS]     # CPO against DPO at equal preference gap
    python -m tests.bench.studies rlvr FOLDER [SEEDS]    # RLVR against GRPO (outcome only) at equal generated tokens

Runs are kept in FOLDER (a home of the app's own): what is finished there is not run again, and what was interrupted is
resumed. The table at the end is the README's.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipes.load import load_recipe
from tests.bench.runs import run_to_end

SEEDS = 5
SELECTION_SEED = 100
"""On this seed DPO's settings are chosen; it is none of those that are compared."""


@dataclass(frozen=True)
class Arm:
    """A library recipe with settings; ``changes`` are ``--set`` of its last stage."""

    name: str
    recipe: str
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Point:
    """What a full evaluation measured at a step. ``generated``: tokens in a row's completions until then, a mean over the
    rows of a step; 0 where nothing is generated."""

    step: int
    figures: dict[str, float]
    generated: float = 0.0


def curve(arm: Arm, seed: int, folder: Path) -> list[Point]:
    """The evaluations of that arm's run with that seed, in order, running it first where it is not finished."""
    last = len(load_recipe(arm.recipe).recipe.stages) - 1
    settings = [f"stages.{last}.{change}" for change in arm.changes] + [f"seed={seed}", "on_gate_fail=warn"]
    run = run_to_end(folder / f"{arm.name}-{seed}", arm.recipe, settings)
    folder = run.output_folder(last).parent / "evaluations"
    stage = run.state().stages[last]
    lengths = stage.series.get("completion_length")
    points = []
    for path in sorted([folder / "before.json", *folder.glob("step-*.json"), folder / "after.json"]):
        step = 0 if path.stem == "before" else int(path.stem[5:]) if path.stem != "after" else stage.steps_total
        figures = {one["name"]: one["value"] for one in json.loads(path.read_text())}
        pairs = zip(lengths.steps, lengths.values, strict=True) if lengths else ()
        points.append(Point(step, figures, sum(value for at, value in pairs if at <= step)))
    return sorted(points, key=lambda point: point.step)


def at_gap(points: Sequence[Point], gap: float, figure: str, at_start: float) -> float | None:
    """``figure`` where the curve first reaches ``gap``, between two evaluations in a straight line; None if it never does."""
    before_gap, before = 0.0, at_start
    for point in points[1:]:
        here_gap, here = point.figures["preference_gap"], point.figures[figure]
        if here_gap >= gap:
            share = (gap - before_gap) / (here_gap - before_gap) if here_gap > before_gap else 1.0
            return before + share * (here - before)
        before_gap, before = here_gap, here
    return None


def said(values: Iterable[float | None], scale: float = 1.0, form: str = ".3f") -> str:
    """Mean and standard deviation of those that are there."""
    found = [scale * value for value in values if value is not None]
    if not found:
        return "not reached"
    spread = statistics.stdev(found) if len(found) > 1 else 0.0
    return f"{statistics.mean(found):{form}} ± {spread:{form}} (n {len(found)})"


# ---- CPO against DPO -------------------------------------------------------------------------------------------------

LEVELS = (0.15, 0.5, 1.0)
LOOK = ("evaluation.every=10", "evaluation.prompts=200", "evaluation.suite_n=100", "evaluation.samples=0")
CPO = Arm("cpo", "cpo", ("steps=100", *LOOK))
DPOS = tuple(
    Arm(f"dpo-beta{beta}-lr{rate}", "dpo", ("steps=60", f"beta={beta}", f"learning_rate={rate}", *LOOK))
    for beta, rate in ((0.1, 0.0005), (0.1, 0.00025), (0.5, 0.0005), (0.5, 0.00025))
)


def cpo_study(folder: Path, seeds: int) -> None:
    tried = {arm: curve(arm, SELECTION_SEED, folder) for arm in DPOS}
    print("| DPO, seed 100 | " + " | ".join(f"KL at gap {level}" for level in LEVELS) + " |")
    for arm, points in tried.items():
        print(f"| {arm.name} | " + " | ".join(said([at_gap(points, level, "kl", 0.0)]) for level in LEVELS) + " |")
    best = min(DPOS, key=lambda arm: _missing_last(at_gap(tried[arm], LEVELS[1], "kl", 0.0)))
    print(f"\nDPO's best: {best.name}\n")
    curves = {arm: [curve(arm, seed, folder) for seed in range(seeds)] for arm in (best, CPO)}
    print("| at gap | figure | DPO, its best | CPO | CPO lower in |\n|---|---|---|---|---|")
    for level in LEVELS:
        for figure, at_start, scale in (("kl", 0.0, 1.0), ("retention", 1.0, 100.0), ("preferred_share", 0.4, 100.0)):
            one, other = ([at_gap(points, level, figure, at_start) for points in curves[arm]] for arm in (best, CPO))
            pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
            lower = f"{sum(b < a for a, b in pairs)} of {len(pairs)}"
            print(f"| {level} | {figure} | {said(one, scale)} | {said(other, scale)} | {lower} |")
    ends = [points[-1].figures for points in curves[CPO]]
    print(f"\nCPO's ends: gap {said(end['preference_gap'] for end in ends)}, KL {said(end['kl'] for end in ends)}, "
          f"retention {said((end['retention'] for end in ends), 100)}")  # fmt: skip


def _missing_last(value: float | None) -> float:
    return float("inf") if value is None else value


# ---- RLVR against GRPO -----------------------------------------------------------------------------------------------


def rlvr_study(folder: Path, seeds: int) -> None:
    """Both take the library's RLVR recipe; GRPO has the answer's reward alone, from the same verifier.

    Compared at each evaluation of the one that had generated fewer tokens by then, the other's curve in a straight line.
    """
    steps = (
        "steps=150",
        "evaluation.every=50",
        "evaluation.prompts=500",
        "evaluation.suite_n=1",
        "evaluation.samples=0",
    )
    same = (*steps, "process_weight=0.5", "outcome_weight=1.0")
    outcome = (*steps, "process_weight=0", "outcome_weight=1.0")
    arms = (Arm("grpo", "rlvr", outcome), Arm("rlvr", "rlvr", same))
    print("| step | tokens | figure | outcome only | RLVR | RLVR higher in |\n|---|---|---|---|---|---|")
    curves = {arm: [curve(arm, seed, folder) for seed in range(seeds)] for arm in arms}
    rows = next(stage.batch_size for stage in load_recipe("rlvr").recipe.stages[::-1] if stage.method == "rlvr")
    for place, point in enumerate(curves[arms[0]][0]):
        tokens = [min(a[place].generated, b[place].generated) for a, b in zip(*curves.values(), strict=True)]
        for figure in ("final_correctness", "step_correctness", "length_ratio"):
            one, other = (
                [at_tokens(points, at, figure) for points, at in zip(curves[arm], tokens, strict=True)] for arm in arms
            )
            higher = f"{sum(b > a for a, b in zip(one, other, strict=True))} of {len(one)}"
            spent = f"{rows * statistics.mean(tokens) / 1000:.0f}k"
            print(
                f"| {point.step} | {spent} | {figure} | {said(one, 100, '.1f')} | {said(other, 100, '.1f')} | {higher} |"
            )


def at_tokens(points: Sequence[Point], tokens: float, figure: str) -> float:
    """``figure`` where the curve has generated so many tokens, between two evaluations in a straight line."""
    one, other = points[0], points[0]
    for other in points:
        if other.generated >= tokens:
            break
        one = other
    a, b = (point.figures.get(figure, 1.0) for point in (one, other))
    share = (tokens - one.generated) / (other.generated - one.generated) if other.generated > one.generated else 0.0
    return a + share * (b - a)


def main() -> None:
    kinds = {"cpo": cpo_study, "rlvr": rlvr_study}
    if len(sys.argv) < 3 or sys.argv[1] not in kinds:
        raise SystemExit(__doc__)
    kinds[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else SEEDS)


if __name__ == "__main__":
    main()
