"""What a stage has to do, counted: completions to generate, rows to score, steps to train. No clock in here.

One function a method, in the order of its stage module (``engine.stages``), so that what a stage measures before and
after is priced as well as its training: on a small model it is the larger part.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.forecast.survey import NOTHING, Rows, survey
from recipes.errors import InputError
from recipes.load import LoadedRecipe
from recipes.resources import is_lab, resolve_source

SUITE_TOKENS = 24
"""Longest answer to a question of the capability suite (``engine.evaluate.retention``)."""
LEAST_OWN_TOKENS = 64
"""Least limit of the answers that replay and anchors are made of (``engine.stages.general``)."""
MOST_REPLAY, MOST_ANCHORS = 2500, 1000
REFERENCES = 2
"""The divergence is taken from the stage's start and from the recipe's base."""
POINTS = 8
"""Quick measurements over a stage (``engine.stages.evaluation``), the last left out."""
QUICK_REWARDS = 128
STEERING_ROUNDS = 11
"""Divergences until a strength is found: the strongest, nine bisections, and the one that is told."""
CALIBRATING, GENERAL, STEERED = 48, 64, 20


@dataclass(frozen=True)
class Generated:
    """Completions of at most ``limit`` tokens. ``prompt`` is a prompt's mean characters."""

    n: float
    limit: int
    greedy: bool
    prompt: float
    when: str = "before"


@dataclass(frozen=True)
class Scored:
    """Forward passes over rows: ``kind`` is the method of the policy. ``answer`` None: over completions that it wrote
    itself, at that ``limit``."""

    kind: str
    n: float
    prompt: float
    answer: float | None
    limit: int = 0
    greedy: bool = False
    when: str = "before"


@dataclass
class Workload:
    generated: list[Generated] = field(default_factory=list)
    scored: list[Scored] = field(default_factory=list)
    padded: float = 0.0
    """Characters of a training row, padded to the longest of its micro-batch."""
    extra_rows: float = 0.0
    """Rows beside the stage's own in a step (CPO's anchors), as a share of them."""
    own_prompt: float = 0.0
    own_limit: int = 0
    """Characters of the prompts and limit of the model's own answers among the rows (replay): where there are some in
    every micro-batch, they decide what it is padded to."""
    asked: float = 0.0
    """Characters of a prompt that training itself answers (GRPO, RLVR)."""
    when: str = "before"
    """What is counted now is done before the first step, ``during`` them (between two, or a search's own) or ``after``."""

    def generate(self, n: float, limit: int, greedy: bool, prompt: float) -> None:
        if n > 0:
            self.generated.append(Generated(n, limit, greedy, prompt, self.when))

    def score(self, kind: str, n: float, prompt: float, answer: float) -> None:
        if n > 0:
            self.scored.append(Scored(kind, n, prompt, answer, when=self.when))

    def look_back(self, kind: str, n: float, prompt: float, limit: int, greedy: bool = False) -> None:
        """Score completions that the model wrote."""
        if n > 0:
            self.scored.append(Scored(kind, n, prompt, None, limit, greedy, self.when))


def workload(loaded: LoadedRecipe, index: int) -> Workload:
    """All that stage ``index`` does from its policy's being loaded to its end."""
    stage = loaded.recipe.stages[index]
    kind = stage.method.replace("-", "_")
    return METHODS[kind](_Data(loaded, stage), stage)


class _Data:
    """The sources that a stage names, surveyed."""

    def __init__(self, loaded: LoadedRecipe, stage: Any) -> None:
        self.loaded, self.stage = loaded, stage
        self.lab = is_lab(loaded.recipe.model)

    def rows(self, source: str | None, columns: dict[str, str] | None = None) -> Rows:
        if source is None:
            return NOTHING
        try:
            path: Path | None = resolve_source(source, self.loaded.folder)
        except InputError:
            path = None
        return survey(path, columns)

    def split(self, data: Any) -> tuple[Rows, Rows]:
        """(training rows, held-out rows)."""
        rows = self.rows(data.source, data.columns)
        count = min(rows.count, data.limit or rows.count)
        if data.heldout:
            return _cut(rows, count), self.rows(data.heldout, data.columns)
        out = max(1, round(count * data.heldout_share))
        return _cut(rows, count - out), _cut(rows, out)

    def general(self, name: str | None) -> Rows:
        return self.rows(name or ("lab/general.jsonl" if self.lab else "builtin/general.jsonl"))

    def suite(self, per_task: int | None = None) -> Rows:
        rows = self.rows(self.loaded.recipe.suite or ("lab/suite.jsonl" if self.lab else "builtin/suite.jsonl"))
        each = per_task or self.stage.evaluation.suite_n
        return _cut(rows, min(rows.count, each * 5)) if each else rows  # both suites have five tasks


def _cut(rows: Rows, count: int) -> Rows:
    return Rows(count, rows.prompt, rows.answer, rows.whole, rows.questions)


# ---- what training stages share --------------------------------------------------------------------------------------


def _around(work: Workload, data: _Data, measure: Callable[[bool], None], prompt: float) -> None:
    """The full evaluations: before, after, and every so many steps if the recipe says so."""
    stage = data.stage
    suite, every = data.suite(), getattr(stage.evaluation, "every", None)
    times = 2 + ((stage.steps - 1) // every if every else 0)
    for number in range(times):
        work.when = "before" if number == 0 else "after" if number == times - 1 else "during"
        measure(number == 0)
        work.generate(suite.count, SUITE_TOKENS, True, suite.prompt)
        work.generate(min(stage.evaluation.samples, 64), stage.evaluation.max_new_tokens, True, prompt)
    work.when = "during"


def _quick(stage: Any) -> int:
    every = stage.evaluation.loss_every or max(1, stage.steps // POINTS)
    return (stage.steps - 1) // every


def _drift(work: Workload, n: float, prompt: float, stage: Any) -> None:
    references = REFERENCES if getattr(stage, "training", "lora") == "lora" else 1
    limit = getattr(stage, "max_new_tokens", stage.evaluation.max_new_tokens)
    work.look_back("divergence", 2 * references * n, prompt, limit)


def _replay(work: Workload, data: _Data, own: int) -> None:
    share = data.stage.replay.share
    if share:
        sources = data.general(data.stage.replay.source)
        wanted = min(round(own * share / (1 - share)), sources.count, MOST_REPLAY)
        limit = max(LEAST_OWN_TOKENS, data.stage.evaluation.max_new_tokens)
        work.when = "before"
        work.generate(wanted, limit, False, sources.prompt)
        if share * data.stage.batch_size >= 1:
            work.own_prompt, work.own_limit = sources.prompt, limit


def _sft(data: _Data, stage: Any) -> Workload:
    work = Workload()
    rows, heldout = data.split(stage.data)
    work.padded = rows.mean if stage.padding_free else rows.longest_of(stage.batch_size)
    n = min(stage.evaluation.prompts, heldout.count)

    def measure(before: bool) -> None:
        work.score("score", heldout.count, heldout.prompt, heldout.answer)
        if heldout.questions:
            work.generate(heldout.count, stage.evaluation.max_new_tokens, True, heldout.prompt)
        work.generate(n, stage.evaluation.max_new_tokens, False, heldout.prompt)
        if not before:
            _drift(work, n, heldout.prompt, stage)

    _around(work, data, measure, heldout.prompt)
    work.score("score", _quick(stage) * heldout.count, heldout.prompt, heldout.answer)
    if stage.replay.share:
        sources, share = data.general(stage.replay.source), stage.replay.share
        seen = stage.steps * stage.batch_size * stage.accumulation * data.loaded.recipe.processes
        room = min(sources.count, MOST_REPLAY) * (1 - share) / share
        copies = max(1, min(math.ceil(room / rows.count), math.ceil(seen * (1 - share) / rows.count)))
        _replay(work, data, rows.count * copies)
    return work


def _preference(data: _Data, stage: Any) -> Workload:
    work = Workload()
    rows, heldout = data.split(stage.data)
    work.padded = rows.longest_of(2 * stage.batch_size)
    n = stage.evaluation.prompts

    def measure(before: bool) -> None:
        work.score("score", 2 * heldout.count, heldout.prompt, heldout.answer)
        work.generate(n, stage.evaluation.max_new_tokens, False, heldout.prompt)
        if not before:
            _drift(work, n, heldout.prompt, stage)

    _around(work, data, measure, heldout.prompt)
    return work


def _cpo(data: _Data, stage: Any) -> Workload:
    work = _preference(data, stage)
    region, heldout = stage.trust_region, data.split(stage.data)[1]
    suite = data.suite(region.suite_n)
    if stage.anchors.share:
        sources = data.general(stage.anchors.source)
        count = min(sources.count, MOST_ANCHORS)
        work.when = "before"
        work.generate(count, max(LEAST_OWN_TOKENS, stage.evaluation.max_new_tokens), False, sources.prompt)
        work.extra_rows = max(1, round(stage.batch_size * stage.anchors.share)) / (2 * stage.batch_size)
    work.when = "during"
    probes = stage.steps // region.every + (1 if stage.steps % region.every else 0)
    work.generate((probes + 1) * suite.count, SUITE_TOKENS, True, suite.prompt)
    for _ in range(probes):
        work.generate(region.prompts, stage.evaluation.max_new_tokens, False, heldout.prompt)
        work.look_back("divergence", 2 * region.prompts, heldout.prompt, stage.evaluation.max_new_tokens)
    return work


def _rewarded(data: _Data, stage: Any) -> Workload:
    work = Workload()
    rows, heldout = data.split(stage.data)
    work.asked = rows.prompt
    n = min(stage.evaluation.prompts, heldout.count)

    def measure(before: bool) -> None:
        work.generate(n, stage.max_new_tokens, False, heldout.prompt)
        work.generate(heldout.count, stage.max_new_tokens, True, heldout.prompt)
        if not before:
            _drift(work, n, heldout.prompt, stage)

    _around(work, data, measure, heldout.prompt)
    for _ in range(_quick(stage)):
        work.generate(min(QUICK_REWARDS, heldout.count), stage.max_new_tokens, False, heldout.prompt)
    return work


def _asked(work: Workload, rows: Rows, stage: Any) -> None:
    """Questions put for their answers and how sure they are (``engine.stages.questions``)."""
    work.generate(rows.count, stage.evaluation.max_new_tokens, True, rows.prompt)
    work.look_back("tempered_logprobs", rows.count, rows.prompt, stage.evaluation.max_new_tokens, greedy=True)


def _calibration(data: _Data, stage: Any) -> Workload:
    work = Workload()
    for rows in data.split(stage.data):
        _asked(work, rows, stage)
    return work


def _anti_hallucination(data: _Data, stage: Any) -> Workload:
    work = Workload()
    rows, heldout = data.split(stage.data)
    work.padded = rows.mean if stage.padding_free else rows.longest_of(stage.batch_size)
    for asked in (rows, heldout):  # what it knows
        work.generate(asked.count, stage.evaluation.max_new_tokens, True, asked.prompt)
        for _ in range(stage.samples):
            work.generate(asked.count, stage.evaluation.max_new_tokens, False, asked.prompt)
    n = min(stage.evaluation.prompts, heldout.count)

    def measure(before: bool) -> None:
        _asked(work, heldout, stage)
        work.generate(n, stage.evaluation.max_new_tokens, False, heldout.prompt)
        if not before:
            _drift(work, n, heldout.prompt, stage)

    _around(work, data, measure, heldout.prompt)
    work.when = "after"
    _asked(work, rows, stage)
    _replay(work, data, rows.count)
    return work


# ---- stages that train nothing ---------------------------------------------------------------------------------------


def _abliteration(data: _Data, stage: Any) -> Workload:
    work = Workload()

    def prompts(kind: str, part: str) -> Rows:
        named = getattr(getattr(stage, kind), part)
        word = "forbidden" if data.lab and kind == "harmful" else kind
        return data.rows(named or f"{'lab' if data.lab else 'builtin'}/{word}-{part}.jsonl")

    harmless, tested = prompts("harmless", "test"), prompts("harmful", "test")
    n = min(stage.evaluation.prompts, harmless.count)
    limit = stage.evaluation.max_new_tokens

    def measure(before: bool) -> None:
        work.generate(n, limit, False, harmless.prompt)
        if not before:
            _drift(work, n, harmless.prompt, stage)

    _around(work, data, measure, harmless.prompt)
    searched = min(stage.search_prompts, prompts("harmless", "search").count)
    work.when = "before"
    work.generate(searched, stage.kl_tokens, True, harmless.prompt)
    work.when = "during"
    work.look_back("divergence", 2 * searched * stage.steps, harmless.prompt, stage.kl_tokens, greedy=True)
    for _ in range(stage.steps):
        work.generate(searched, limit, True, tested.prompt)
    work.when = "after"
    work.look_back("score", 2 * searched, harmless.prompt, stage.kl_tokens, greedy=True)
    for _ in range(2):
        work.generate(tested.count, limit, True, tested.prompt)
    return work


def _steering(data: _Data, stage: Any) -> Workload:
    work = Workload()
    limit, n, suite = stage.evaluation.max_new_tokens, stage.evaluation.prompts, data.suite()
    prompt = 0.0
    for persona in stage.personas.values():
        _, heldout = data.split(persona.data)
        prompt = heldout.prompt
        work.when = "after"
        work.generate(n, limit, False, prompt)  # steered
        work.generate(suite.count, SUITE_TOKENS, True, suite.prompt)
        work.score("score", 2 * heldout.count, prompt, heldout.answer)
        work.when = "before"
        for _ in range(2):  # left alone, told
            work.generate(n, limit, False, prompt)
        for _ in range(2):  # the search's baseline
            work.generate(stage.search_prompts, limit, False, prompt)
        work.score("score", 2 * heldout.count, prompt, heldout.answer)
        work.generate(suite.count, SUITE_TOKENS, True, suite.prompt)
    work.when = "during"
    for name in stage.personas:
        of = stage.settings_of(name)
        for window in of["windows"]:
            tokens = STEERED if window is None else min(window, STEERED)
            for _ in range(len(stage.layers) * len(stage.forms) * len(of["sources"]) * len(of["kl"])):
                for _ in range(STEERING_ROUNDS):
                    work.generate(CALIBRATING, tokens, False, prompt)
                work.look_back("divergence", 2 * STEERING_ROUNDS * CALIBRATING, prompt, tokens)
                work.generate(stage.search_prompts, limit, False, prompt)
                work.look_back("divergence", 2 * GENERAL, prompt, STEERED, greedy=True)
    work.when = "after"
    work.generate(GENERAL, STEERED, True, prompt)
    work.generate(2 * suite.count, SUITE_TOKENS, True, suite.prompt)
    acting = sum(bool(factor) for factor in stage.factors.values())
    for _ in range(acting):
        work.generate(n, limit, False, prompt)
        _drift(work, n, prompt, stage)
    if acting > 1:  # random vectors as long
        work.generate(suite.count, SUITE_TOKENS, True, suite.prompt)
    return work


METHODS: dict[str, Callable[[_Data, Any], Workload]] = {
    "sft": _sft, "dpo": _preference, "orpo": _preference, "cpo": _cpo, "grpo": _rewarded, "rlvr": _rewarded,
    "calibration": _calibration, "anti_hallucination": _anti_hallucination, "abliteration": _abliteration,
    "steering": _steering,
}  # fmt: skip
