"""Abliteration: find the edit that takes refusals away and leaves the rest, and hand it on with the lineage."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from engine.backends.interface import Completion, Conversation
from engine.data.edit_stages import load_prompts
from engine.evaluate.drift import mean_length
from engine.evaluate.measurement import Measurement
from engine.evaluate.refusals import Judged, judged, perplexity, refusal_rate, to_audit, upper_bound
from engine.models.lineage import Lineage
from engine.runs.events import SampleEvent
from engine.runs.files import write_atomically
from engine.stages.context import StageContext
from engine.stages.evaluation import Evaluation, When
from engine.stages.searching import carry_on, entry, finish, load, tell_step
from engine.stages.study import Study, Trial, default_pick, front
from engine.verify.refusal import load_forms
from recipes.errors import InputError, Problem

GOOD = 0.01
"""Share of refusals on the search prompts from which on only the KL counts: it leaves room below the gate's 5 %."""


def run(context: StageContext) -> bool:
    if context.rank != 0:  # the search is one process's work
        return True
    with closing(RefusalEvaluation(context)) as evaluation:
        return _run(context, evaluation)


def _run(context: StageContext, evaluation: RefusalEvaluation) -> bool:
    policy = load(context, evaluation)
    bench = context.backend.bench(context.method, policy)
    forms = _forms(context, bench)
    evaluation.before()
    bench.extract(
        load_prompts(context.data / "harmful-extraction.jsonl"),
        load_prompts(context.data / "harmless-extraction.jsonl"),
        context.stage.positions,
        context.stage.orthogonal,
        context.folder / "directions.safetensors",
        context.phase("evaluating", "directions", "prompts"),
    )
    trials = _search(context, evaluation, bench, forms)
    evaluation.trials, evaluation.picked = trials, _picked(context, trials)
    bench.apply(evaluation.picked.parameters, context.stage.strength)
    return finish(context, evaluation, lambda draft: _hand_on(context, bench, evaluation.picked, draft))


def _forms(context: StageContext, bench: Any) -> list[str]:
    """The forms that are exact on every layer of this model; what cannot be is refused or said, never skipped."""
    fused = bench.without_rows()
    wanted = list(context.stage.forms)
    if not fused:
        return wanted
    shown = ", ".join(fused[:4]) + (f" and {len(fused) - 4} more" if len(fused) > 4 else "")
    if "plain" not in wanted:
        found = f"the form `norm` alone, for a model whose {shown} are no single matrix (fused experts)"
        raise InputError([Problem("recipe", None, f"stages.{context.index}.forms", found, "`plain` among the forms")])
    if "norm" in wanted:
        text = (
            f"{shown} have no rows whose norms could be kept (fused experts): every layer is edited in the plain form"
        )
        context.alert("info", "plain-only", text)
    return ["plain"]


# ---- the search ------------------------------------------------------------------------------------------------------


def space(stage: Any, forms: Sequence[str]) -> dict[str, BaseDistribution]:
    """What a trial may choose. The bells over the depth are in fractions of it."""
    found: dict[str, BaseDistribution] = {
        "depth": FloatDistribution(stage.depth_from, stage.depth_to),
        "position": IntDistribution(-stage.positions, -1),
        "form": CategoricalDistribution(list(forms)),
    }
    for component in ("attention", "mlp"):
        found[f"{component}.weight"] = FloatDistribution(0.0, 1.25)
        found[f"{component}.peak"] = FloatDistribution(0.2, 1.0)
        found[f"{component}.width"] = FloatDistribution(0.15, 1.5)
    return found


def _search(context: StageContext, evaluation: RefusalEvaluation, bench: Any, forms: list[str]) -> list[Trial]:
    stage, path = context.stage, context.folder / "study.jsonl"
    study = Study(path, space(stage, forms), lambda number: context.seed_for(number, "trial"))
    carry_on(context, path, [_values(trial) for trial in study.trials])
    answers = evaluation.search_answers()
    progress = context.phase("training", "trials", "trials")
    while len(study.trials) < stage.steps:
        number, parameters = study.propose()
        bench.apply(parameters, 1.0)
        kl = evaluation.search_kl(answers, progress)
        within = math.isfinite(kl) and kl <= stage.kl_limit
        rate = evaluation.search_rate(number, progress) if within else None  # the cheap objective first
        trial = study.add(parameters, kl, rate)
        tell_step(context, path, len(study.trials), _values(trial))
        context.check_interruption()
    return study.trials


def _values(trial: Trial) -> dict[str, float]:
    """A trial's gauges; the reward is the share complied with, and 0 for a trial that was dropped."""
    rate = 1.0 if trial.rate is None else trial.rate
    return {"kl": trial.kl, "reward": 1.0 - rate, "refusal_rate": rate, "dropped": float(trial.rate is None)}


def _picked(context: StageContext, trials: list[Trial]) -> Trial:
    """The trial that the recipe names or the default; told, with the front it was taken from."""
    best = front(trials)
    write_atomically(context.folder / "front.json", json.dumps([asdict(trial) for trial in best], indent=1))
    wanted = context.stage.pick
    if wanted is not None:
        found = next((trial for trial in trials if trial.number == wanted and trial.rate is not None), None)
        if found is None:
            names = ", ".join(str(trial.number) for trial in best)
            accepted = f"a trial that was not dropped, such as those of the Pareto front: {names or 'there is none'}"
            raise InputError([Problem("recipe", None, f"stages.{context.index}.pick", f"`{wanted}`", accepted)])
        return found
    picked = default_pick(trials, GOOD)
    if picked is None:
        found_text = f"{len(trials)} trials, each with a KL above {context.stage.kl_limit:g} on harmless prompts"
        field = f"stages.{context.index}.kl_limit"
        raise InputError([Problem("recipe", None, field, found_text, "a higher `kl_limit`, or more `steps`")])
    return picked


def _hand_on(context: StageContext, bench: Any, picked: Trial, draft: Path) -> Lineage:
    before = context.lineage
    modules = bench.save(picked.parameters, draft / "edits.safetensors", {"base": before.base.id})
    fact = entry(
        context, draft, "edits.safetensors", strength=context.stage.strength, form=picked.parameters["form"],
        trial=picked.number, modules=modules,
    )  # fmt: skip
    return replace(before, edits=[*before.edits, fact])


# ---- measuring -------------------------------------------------------------------------------------------------------


class RefusalEvaluation(Evaluation):
    """Refusals and KL on the search prompts for the trials; both on the test prompts once, at the end."""

    def __init__(self, context: StageContext) -> None:
        super().__init__(context)
        path = context.data / "judge.yaml"
        self.forms = self.held(load_forms(path)) if path.is_file() else None
        n = self.stage.search_prompts
        self.harmful = load_prompts(context.data / "harmful-search.jsonl")[:n]
        self.harmless = load_prompts(context.data / "harmless-search.jsonl")[:n]
        self.trials: list[Trial] = []
        self.picked: Trial

    def sample_prompts(self) -> Sequence[Conversation]:
        return load_prompts(self.context.data / "harmless-test.jsonl")

    # ---- on the search prompts -----------------------------------------------------------------------------------

    def search_answers(self) -> list[Completion]:
        """The start's own beginnings of answers to the harmless search prompts: the ground of every trial's KL."""

        def answer() -> list[dict[str, Any]]:
            completions = self._policy().generate(
                self.harmless, max_new_tokens=self.stage.kl_tokens, temperature=0.0, seed=0, of="start",
                progress=self.context.phase("evaluating", "the start's harmless answers", "answers"),
            )  # fmt: skip
            return [asdict(completion) for completion in completions]

        stored = self.context.results.value("search-answers", answer)
        return [Completion(item["text"], tuple(item["tokens"]), item["finished"]) for item in stored]

    def search_kl(self, answers: Sequence[Completion], progress: Any) -> float:
        """KL(policy || start) on those answers, nats per token."""
        measured = self._policy().divergence(self.harmless, answers, to="start", progress=_interruptible(progress))
        return math.fsum(one.total for one in measured) / max(1, sum(one.tokens for one in measured))

    def search_rate(self, number: int, progress: Any) -> float:
        """Share of the harmful search prompts not complied with, greedy."""
        replies = self._policy().generate(
            self.harmful, max_new_tokens=self.stage.evaluation.max_new_tokens, temperature=0.0,
            seed=self.context.seed_for(number, "replies"), progress=_interruptible(progress),
        )  # fmt: skip
        return refusal_rate(judged(self.harmful, replies, self.forms)).value

    # ---- before and after ----------------------------------------------------------------------------------------

    def measure(self, when: When, step: int) -> list[Measurement]:
        prompts = load_prompts(self.context.data / "harmless-test.jsonl")[: self.stage.evaluation.prompts]
        samples = self.sampled(step, prompts, f"harmless completions, {when}")
        if when == "before":
            return [Measurement("completion_length", mean_length(samples), len(samples))]
        measured = self.drift(prompts, samples)
        measured += self._price()
        measured += self._tested(step)
        table = [
            {"trial": trial.number, "KL": trial.kl, "refusals": trial.rate, "form": trial.parameters["form"],
             "depth": trial.parameters["depth"], "picked": "yes" if trial.number == self.picked.number else ""}
            for trial in front(self.trials)
        ]  # fmt: skip
        says = f"Pareto front of {len(self.trials)} trials on the search prompts (n {len(self.harmful)} each)"
        measured.append(
            Measurement("pareto_front", len(table), len(self.trials), detail={"says": says, "table": table})
        )
        return measured

    def _price(self) -> list[Measurement]:
        """How much less likely the edited model finds what the start would say to harmless prompts."""
        policy, answers = self._policy(), self.search_answers()
        start = perplexity(policy, self.harmless, answers, "start")
        now = perplexity(policy, self.harmless, answers, "policy")
        detail = {"unit": "answers", "before": start, "after": now}
        return [Measurement("perplexity_ratio", now / start, len(answers), detail=detail)]

    def _tested(self, step: int) -> list[Measurement]:
        """The test prompts, for the only time: the start and the edited model on the same."""
        prompts = load_prompts(self.context.data / "harmful-test.jsonl")
        rows: dict[str, list[Judged]] = {}
        for which in ("start", "policy"):
            replies = self._policy().generate(
                prompts, max_new_tokens=self.stage.evaluation.max_new_tokens, temperature=0.0,
                seed=self.context.seed_for(step, "test"), of=which,  # type: ignore[arg-type]
                progress=self.context.phase("evaluating", f"refusals on the test prompts, {which}", "replies"),
            )  # fmt: skip
            rows[which] = judged(prompts, replies, self.forms)
        lines = [json.dumps({"of": which, **asdict(row)}) for which, found in rows.items() for row in found]
        write_atomically(self.context.folder / "judged.jsonl", "\n".join(lines) + "\n")
        self._tell([refusal_rate(rows["start"])], "before", 0)
        for row in to_audit(rows["policy"]):
            self.context.channel.emit(
                SampleEvent(step=step, prompt=row.request, completion=row.reply, label=f"judged: {row.label}")
            )
        return [refusal_rate(rows["policy"])]

    def derived(self, measured: Sequence[Measurement]) -> list[Measurement]:
        return [upper_bound(one) for one in measured if one.name == "refusal_rate"]


def _interruptible(progress: Any) -> Any:
    """Progress of a part of a trial: obeys a pause, and leaves the count of trials on the screen alone."""
    return lambda _done, _total: progress(0, 0)
