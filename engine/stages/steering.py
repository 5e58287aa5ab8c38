"""Steering: find for each persona the vector that goes far enough and disturbs least, and hand them on with dials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from engine.data.edit_stages import load_contrasts, load_prompts
from engine.evaluate.steering import share_of_prompt
from engine.models.lineage import Lineage
from engine.stages.composing import composed
from engine.stages.context import StageContext
from engine.stages.journal import Journal
from engine.stages.searching import carry_on, entry, finish, load, tell_step
from engine.stages.steering_evaluation import Candidate, SteeringEvaluation, told

ROUNDS = 9
"""Bisections of a strength."""
WEAKEST, STRONGEST = 1e-3, 2.0
"""Range of a strength, in mean norms of the residual stream."""
BROKEN = 0.05
"""Share of broken completions beyond the start's from which on a candidate is not taken."""


def run(context: StageContext) -> bool:
    if context.rank != 0:  # the search is one process's work
        return True
    with closing(SteeringEvaluation(context)) as evaluation:
        return _run(context, evaluation)


def _run(context: StageContext, evaluation: SteeringEvaluation) -> bool:
    policy = load(context, evaluation)
    bench = context.backend.bench(context.method, policy)
    evaluation.bench = bench
    evaluation.before()
    _extract(context, evaluation, bench)
    evaluation.picked = _search(context, evaluation, bench)
    evaluation.factors = composed(context, bench, evaluation.picked, evaluation.joint_kl)
    return finish(context, evaluation, lambda draft: _hand_on(context, evaluation, draft))


def _extract(context: StageContext, evaluation: SteeringEvaluation, bench: Any) -> None:
    for name, persona in context.stage.personas.items():
        rows = load_contrasts(context.data / name / "extraction.jsonl")
        for source in context.stage.settings_of(name)["sources"]:
            if source == "completions":
                positive = [(row.prompt, row.positive) for row in rows]
                negative = [(row.prompt, row.negative) for row in rows]
            elif source == "prompts":  # of an empty reply only its beginning is looked at
                shown = load_prompts(context.data / name / "shown.jsonl")
                positive = [(prompt, "") for prompt in shown[: len(rows)]]
                negative = [(row.prompt, "") for row in rows[: len(shown)]]
            else:  # the same words on both sides, so that only what was asked for differs
                both = [(row.prompt, text) for row in rows for text in (row.positive, row.negative)]
                positive = [(told(prompt, persona.prompt), text) for prompt, text in both]
                negative = [(told(prompt, persona.opposite), text) for prompt, text in both]
            path = context.folder / f"{name}-{source}.safetensors"
            progress = context.phase("evaluating", f"vectors of {name}, {source}", "rows")
            bench.extract(name, source, positive, negative, path, progress)
        if context.stage.settings_of(name)["condition"]:
            own = [list(row.prompt) for row in rows]
            path = context.folder / f"{name}-condition.safetensors"
            bench.extract_condition(name, own, evaluation.general, path)


# ---- the search ------------------------------------------------------------------------------------------------------


def candidates(stage: Any) -> list[Candidate]:
    """All of a stage's candidates in the order in which they are tried; their strength is yet to be found."""
    return [
        {"persona": name, "depth": depth, "source": source, "form": form, "window": window, "kl": kl}
        for name in stage.personas
        for of in [stage.settings_of(name)]
        for depth, source, form, window, kl in product(
            stage.layers, of["sources"], stage.forms, of["windows"], sorted(of["kl"])
        )
    ]


def _search(context: StageContext, evaluation: SteeringEvaluation, bench: Any) -> dict[str, Candidate]:
    path = context.folder / "candidates.jsonl"
    journal = Journal(path)
    wanted = candidates(context.stage)
    for number, (tried, candidate) in enumerate(zip(journal.entries, wanted, strict=False), start=1):
        if not isinstance(tried, dict) or {name: tried.get(name) for name in candidate} != candidate:
            raise journal.broken("a candidate of another search", number)
    carry_on(context, path, [_values(tried) for tried in journal.entries])
    baseline = {name: evaluation.search_baseline(name) for name in context.stage.personas}
    progress = context.phase("training", "candidates", "candidates")
    for number in range(len(journal.entries), len(wanted)):
        journal.append(_tried(evaluation, bench, wanted[number], number, baseline, progress))
        tell_step(context, path, number + 1, _values(journal.entries[-1]))
        context.check_interruption()
    return {name: _pick(context, name, journal.entries, baseline[name]) for name in context.stage.personas}


def _tried(
    evaluation: SteeringEvaluation,
    bench: Any,
    candidate: Candidate,
    number: int,
    baseline: Mapping[str, Mapping[str, float]],
    progress: Any,
) -> Candidate:
    """The candidate with the strength that causes its KL, and what it does at that."""
    name, window = candidate["persona"], candidate["window"]

    def at(strength: float) -> float:
        progress(0, 0)  # obeys a pause
        bench.apply([{**candidate, "strength": strength}])
        return evaluation.steered_kl([name], window)

    found = {**candidate, "strength": solve(at, candidate["kl"])}
    found["kl_reached"] = at(found["strength"])
    share = evaluation.search_share(name, number)
    base = baseline[name]
    found["share"], found["broken"] = share.value, share.detail["broken"]
    found["shift"] = share_of_prompt(base["alone"], base["told"], share.value)
    found["disturbance"] = evaluation.disturbance()
    return found


def solve(kl_at: Callable[[float], float], target: float) -> float:
    """The strength whose KL is ``target``, by bisection of its logarithm; the strongest if even that has less."""
    low, high = WEAKEST, STRONGEST
    if kl_at(high) < target:
        return high
    for _ in range(ROUNDS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if kl_at(middle) < target else (low, middle)
    return low


def _values(tried: Mapping[str, Any]) -> dict[str, float]:
    """A candidate's gauges; the reward is its shift over the prompt's."""
    return {
        "kl": tried["kl_reached"],
        "reward": tried["shift"],
        "strength": tried["strength"],
        "broken": tried["broken"],
        "disturbance": tried["disturbance"],
    }


def _pick(context: StageContext, name: str, tried: Sequence[Candidate], base: Mapping[str, float]) -> Candidate:
    """Of the candidates that reach the aim unbroken the one that disturbs least, else the farthest unbroken one."""
    own = [one for one in tried if one["persona"] == name]
    whole = [one for one in own if one["broken"] <= base["broken"] + BROKEN] or own
    reached = [one for one in whole if one["shift"] >= context.stage.aim]
    if reached:
        return min(reached, key=lambda one: one["disturbance"])
    best = max(whole, key=lambda one: one["shift"])
    text = (
        f"{name}: no candidate reached {context.stage.aim:.0%} of the prompt's shift; the best has {best['shift']:.0%}"
    )
    context.alert("warning", "aim-missed", text)
    return best


# ---- handing on -----------------------------------------------------------------------------------------------------


def _hand_on(context: StageContext, evaluation: SteeringEvaluation, draft: Path) -> Lineage:
    before = context.lineage
    entries = []
    for name, candidate in evaluation.picked.items():
        facts = evaluation.bench.save(candidate, draft / f"{name}.safetensors", {"base": before.base.id})
        factor = evaluation.factors[name]
        entries.append(
            entry(context, draft, f"{name}.safetensors", strength=factor, kl=candidate["kl_reached"], **facts)
        )
    return replace(before, vectors=[*before.vectors, *entries])
