"""Steering: find for each persona the vector that goes far enough and disturbs least, and hand them on with dials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

from engine.backends.interface import Completion, Conversation
from engine.data.edit_stages import load_contrasts, load_prompts
from engine.evaluate.drift import measure_kl
from engine.evaluate.measurement import Measurement, rate
from engine.evaluate.retention import measure_suite
from engine.evaluate.steering import STEERED, share_of_prompt, shown, side_effects, strength_of, tail, wrong_way
from engine.models.lineage import Lineage
from engine.stages.context import StageContext
from engine.stages.evaluation import REFERENCES, Evaluation, When
from engine.stages.journal import Journal
from engine.stages.searching import carry_on, entry, finish, load, tell_step
from engine.verify.judge import load_judge
from recipes.composition import parse_composition

CALIBRATING = 48
"""Prompts on whose completions a strength's KL is taken."""
GENERAL = 64
"""General prompts on which a candidate's disturbance is taken."""
ROUNDS = 9
WEAKEST, STRONGEST = 1e-3, 2.0
"""Range of a strength, in mean norms of the residual stream."""
BROKEN = 0.05
"""Share of broken completions beyond the start's from which on a candidate is not taken."""
OPPOSED = -0.5
"""Cosine below which two vectors of a composition are said to undo each other."""

Candidate = dict[str, Any]


def run(context: StageContext) -> bool:
    if context.rank != 0:  # the search is one process's work
        return True
    evaluation = SteeringEvaluation(context)
    policy = load(context, evaluation)
    bench = context.backend.bench(context.method, policy)
    evaluation.bench = bench
    evaluation.before()
    _extract(context, evaluation, bench)
    evaluation.picked = _search(context, evaluation, bench)
    evaluation.factors = _composition(context, evaluation, bench)
    return finish(context, evaluation, lambda draft: _hand_on(context, evaluation, draft))


def _extract(context: StageContext, evaluation: SteeringEvaluation, bench: Any) -> None:
    for name, persona in context.stage.personas.items():
        rows = load_contrasts(context.data / name / "extraction.jsonl")
        for source in context.stage.sources:
            if source == "completions":
                positive = [(row.prompt, row.positive) for row in rows]
                negative = [(row.prompt, row.negative) for row in rows]
            else:  # the same words on both sides, so that only what was asked for differs
                both = [(row.prompt, text) for row in rows for text in (row.positive, row.negative)]
                positive = [(told(prompt, persona.prompt), text) for prompt, text in both]
                negative = [(told(prompt, persona.opposite), text) for prompt, text in both]
            path = context.folder / f"{name}-{source}.safetensors"
            progress = context.phase("evaluating", f"vectors of {name}, {source}", "rows")
            bench.extract(name, source, positive, negative, path, progress)
        if context.stage.condition:
            own = [list(row.prompt) for row in rows]
            path = context.folder / f"{name}-condition.safetensors"
            bench.extract_condition(name, own, evaluation.general, path)


# ---- the search ------------------------------------------------------------------------------------------------------


def candidates(stage: Any) -> list[Candidate]:
    """All of a stage's candidates in the order in which they are tried; their strength is yet to be found."""
    parts = product(stage.personas, stage.layers, stage.sources, stage.forms, stage.windows, sorted(stage.kl))
    return [
        {"persona": name, "depth": depth, "source": source, "form": form, "window": window, "kl": kl}
        for name, depth, source, form, window, kl in parts
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


# ---- composing -------------------------------------------------------------------------------------------------------


def told(prompt: Conversation, text: str) -> Conversation:
    """The conversation with ``text`` as its system prompt, before what that says already."""
    if prompt and prompt[0]["role"] == "system":
        return [{"role": "system", "content": f"{text}\n{prompt[0]['content']}"}, *prompt[1:]]
    return [{"role": "system", "content": text}, *prompt]


def _composition(context: StageContext, evaluation: SteeringEvaluation, bench: Any) -> dict[str, float]:
    """Factor of each persona's vector in what the stage hands on, within the joint KL budget."""
    stage, picked = context.stage, evaluation.picked
    names = list(picked)
    if stage.compose is not None:
        factors = {name: 0.0 for name in names} | parse_composition(stage.compose, names)
    else:
        factors = {name: 1.0 if len(names) == 1 else 0.0 for name in names}
    acting = [name for name in names if factors[name]]
    for first, second in combinations(acting, 2):
        angle = bench.cosine(picked[first], picked[second]) * (1 if factors[first] * factors[second] > 0 else -1)
        if angle < OPPOSED:
            text = f"{first} and {second} undo each other in the composition (cosine {angle:.2f})"
            context.alert("warning", "conflict", text)
    if stage.kl_budget is None or not acting:
        return factors

    def joint(scale: float) -> float:
        bench.apply([picked[name] for name in acting], [scale * factors[name] for name in acting])
        return evaluation.steered_kl(acting, evaluation.widest(acting))

    if joint(1.0) <= stage.kl_budget:
        return factors
    low, high = 0.0, 1.0
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        low, high = (middle, high) if joint(middle) <= stage.kl_budget else (low, middle)
    text = f"the composition is scaled to {low:.2f} of its strengths to keep the joint KL within {stage.kl_budget:g}"
    context.alert("info", "scaled", text)
    return {name: low * factor for name, factor in factors.items()}


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


# ---- measuring -------------------------------------------------------------------------------------------------------


class SteeringEvaluation(Evaluation):
    """Each persona's shift on held-out prompts against a prompt alone, and what it costs the suite at that strength."""

    bench: Any
    picked: dict[str, Candidate]
    factors: dict[str, float]

    def __init__(self, context: StageContext) -> None:
        super().__init__(context)
        data = context.data
        self.general = load_prompts(data / "general.jsonl")[:GENERAL]
        self.judges = {name: load_judge(data / name / "judge.yaml") for name in self.stage.personas}
        self.pairs = {name: load_contrasts(data / name / "heldout.jsonl") for name in self.stage.personas}
        self.searched = {
            name: _repeated([list(row.prompt) for row in load_contrasts(data / name / "search.jsonl")], None)
            for name in self.stage.personas
        }

    def sample_prompts(self) -> Sequence[Conversation]:
        return self._heldout(next(iter(self.pairs)))

    def _heldout(self, name: str) -> list[Conversation]:
        return _repeated([list(row.prompt) for row in self.pairs[name]], self.stage.evaluation.prompts)

    # ---- on the search prompts -----------------------------------------------------------------------------------

    def search_baseline(self, name: str) -> dict[str, float]:
        """The start's shares on the search prompts, left alone and told."""

        def measure() -> dict[str, float]:
            alone = self._share(name, self._search_prompts(name), 0, "start", "search-baseline")
            asked = [told(prompt, self.stage.personas[name].prompt) for prompt in self._search_prompts(name)]
            by_prompt = self._share(name, asked, 0, "start", "search-baseline")
            return {"alone": alone.value, "told": by_prompt.value, "broken": alone.detail["broken"]}

        return self.context.results.value(f"search-{name}", measure)

    def search_share(self, name: str, number: int) -> Measurement:
        return self._share(name, self._search_prompts(name), number, "policy", "candidate")

    def _search_prompts(self, name: str) -> list[Conversation]:
        return _repeated(self.searched[name], self.stage.search_prompts)

    def _share(self, name: str, prompts: list[Conversation], step: int, which: Any, purpose: str) -> Measurement:
        completions = self._policy().generate(
            prompts, max_new_tokens=self.stage.evaluation.max_new_tokens, temperature=1.0,
            seed=self.context.seed_for(step, purpose), of=which,
        )  # fmt: skip
        return shown(self.judges[name], completions, f"share/{name}")

    def steered_kl(self, names: Sequence[str], window: int | None) -> float:
        """95th percentile of the KL to the start on the policy's own first tokens; as cheap as the window allows."""
        each = -(-CALIBRATING // len(names))
        prompts = [prompt for name in names for prompt in _repeated(self.searched[name], each)]
        tokens = STEERED if window is None else min(window, STEERED)
        seed = self.context.seed_for(0, "calibration")
        completions = self._policy().generate(prompts, max_new_tokens=tokens, temperature=1.0, seed=seed)
        return tail(self._policy().divergence(prompts, completions, to="start"), window)

    def disturbance(self) -> float:
        """KL to the start on its own answers to general prompts, nats per answer (of its first tokens)."""

        def answer() -> list[dict[str, Any]]:
            completions = self._policy().generate(
                self.general, max_new_tokens=STEERED, temperature=0.0, seed=0, of="start"
            )
            return [asdict(completion) for completion in completions]

        stored = self.context.results.value("general-answers", answer)
        answers = [Completion(item["text"], tuple(item["tokens"]), item["finished"]) for item in stored]
        measured = self._policy().divergence(self.general, answers, to="start")
        return sum(one.total for one in measured) / len(measured)

    def widest(self, names: Sequence[str]) -> int | None:
        windows = [self.picked[name]["window"] for name in names]
        return None if None in windows else max(windows)

    # ---- before and after ----------------------------------------------------------------------------------------

    def measure(self, when: When, step: int) -> list[Measurement]:
        if when == "before":
            return self._before()
        measured: list[Measurement] = []
        table = []
        for name in self.stage.personas:
            mine = self._persona(name, step)
            measured += mine
            figures = {one.name.partition("/")[0]: one.value for one in mine}
            candidate = self.picked[name]
            table.append({
                "persona": name, "layer": self.bench.layer(candidate), "source": candidate["source"],
                "form": candidate["form"], "window": candidate["window"] or "all", "strength": candidate["strength"],
                **{figure: value for figure, value in figures.items() if figure != "told"},
            })  # fmt: skip
        says = "Each persona alone, its dial at 1"
        measured.append(Measurement("personas", len(table), self.stage.steps, detail={"says": says, "table": table}))
        measured += self._angles()
        return measured + self._composed(step)

    def _before(self) -> list[Measurement]:
        measured = []
        for name in self.stage.personas:
            prompts = self._heldout(name)
            samples = self.sampled(0, prompts, f"{name}, left alone")
            measured.append(shown(self.judges[name], samples, f"share/{name}"))
            asked = [told(prompt, self.stage.personas[name].prompt) for prompt in prompts]
            samples = self.sampled(0, asked, f"{name}, by its prompt")
            measured.append(shown(self.judges[name], samples, f"told/{name}"))
        return measured

    def _persona(self, name: str, step: int) -> list[Measurement]:
        """One persona alone at a dial of 1: shift, wrong way and side effects, all at one and the same strength."""
        before = {one.name: one for one in self._stored("before")}
        candidate = self.picked[name]
        self.bench.apply([candidate])
        steered = shown(self.judges[name], self.sampled(step, self._heldout(name), f"{name}, steered"), f"share/{name}")
        alone, by_prompt = before[f"share/{name}"], before[f"told/{name}"]
        measured = [steered, strength_of(f"steering_strength/{name}", alone, by_prompt, steered)]
        measured.append(wrong_way(f"wrong_way/{name}", self._odds(name, "start"), self._odds(name, "policy")))
        measured += self._side_effects(f"side_effects/{name}", step)
        if self.stage.condition:
            measured += self._firing(name, candidate)
        self.bench.apply_random(candidate, self.context.seed_for(step, f"random {name}"))
        return measured + self._side_effects(f"side_effects_floor/{name}", step)

    def _firing(self, name: str, candidate: Candidate) -> list[Measurement]:
        """Where the condition holds: on the persona's own held-out prompts it should, on the suite's it should not."""
        own = _repeated([list(row.prompt) for row in self.pairs[name]], None)
        others = [row.prompt for row in self.suite]
        return [
            rate(f"{kind}/{name}", self.bench.fires(candidate, prompts), len(prompts), unit="prompts")
            for kind, prompts in (("condition_held", own), ("condition_held_beside", others))
            if prompts
        ]

    def _side_effects(self, name: str, step: int) -> list[Measurement]:
        progress = self.context.phase("evaluating", name.replace("_", " "), "answers")
        suite = measure_suite(self._policy(), self.suite, self.context.seed_for(step, "suite"), progress)
        found = side_effects(name, self._stored("before"), suite)
        return [] if found is None else [found]

    def _odds(self, name: str, which: Any) -> list[float]:
        """Log-odds of the positive completion against the negative one for each held-out pair."""
        policy, pairs = self._policy(), self.pairs[name]
        prompts: list[Conversation] = [list(row.prompt) for row in pairs]
        good = policy.score(prompts, [row.positive for row in pairs], of=which)
        bad = policy.score(prompts, [row.negative for row in pairs], of=which)
        return [one.logprob - other.logprob for one, other in zip(good, bad, strict=True)]

    def _angles(self) -> list[Measurement]:
        """Cosines of the personas' vectors: near 0 they compose, near -1 they undo each other."""
        pairs = list(combinations(self.picked, 2))
        if not pairs:
            return []
        table = [
            {"persona": first, "with": second, "cosine": self.bench.cosine(self.picked[first], self.picked[second])}
            for first, second in pairs
        ]
        lowest = min(row["cosine"] for row in table)
        says = "Cosines of the vectors"
        return [Measurement("lowest_cosine", lowest, len(pairs), detail={"says": says, "table": table})]

    def _composed(self, step: int) -> list[Measurement]:
        """What the stage hands on, left acting for the suite that follows: the shares and the KL under all dials."""
        acting = [name for name, factor in self.factors.items() if factor]
        self.bench.apply([self.picked[name] for name in acting], [self.factors[name] for name in acting])
        if not acting:
            return []
        measured = []
        for name in acting:
            samples = self.sampled(step, self._heldout(name), f"{name}, composed")
            measured.append(shown(self.judges[name], samples, f"share_composed/{name}"))
        prompts = self._heldout(acting[-1])
        for which, name in REFERENCES.items():
            measured += measure_kl(self._policy(), prompts, samples, to=which, name=name)
        measured.append(Measurement("joint_kl", self.steered_kl(acting, self.widest(acting)), CALIBRATING))
        return measured

    def derived(self, measured: Sequence[Measurement]) -> list[Measurement]:
        """The gates look at the worst persona."""

        def worst(name: str, choose: Any) -> list[Measurement]:
            own = [one for one in measured if one.name.startswith(f"{name}/")]
            if not own:
                return []
            found = choose(own, key=lambda one: one.value)
            who = found.name.partition("/")[2]
            detail = {**found.detail, "says": f"{who}: {found.detail.get('says', '')}".rstrip(": ")}
            return [replace(found, name=name, detail=detail)]

        return [*worst("steering_strength", min), *worst("side_effects", max), *worst("wrong_way", max)]


def _repeated(prompts: list[Conversation], wanted: int | None) -> list[Conversation]:
    """The different prompts in order, as often as needed for ``wanted`` of them: each is sampled afresh."""
    different = list({str(prompt): prompt for prompt in prompts}.values())
    return different if wanted is None else (different * (-(-wanted // len(different))))[:wanted]
