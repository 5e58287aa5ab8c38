"""What a steering stage measures: shifts on held-out prompts against a prompt alone, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import combinations
from typing import Any

from engine.backends.interface import Completion, Conversation
from engine.data.edit_stages import load_contrasts, load_prompts
from engine.evaluate.drift import measure_kl
from engine.evaluate.measurement import Measurement, rate
from engine.evaluate.retention import measure_suite
from engine.evaluate.steering import STEERED, shown, side_effects, strength_of, tail, wrong_way
from engine.stages.context import StageContext
from engine.stages.evaluation import REFERENCES, Evaluation, When
from engine.verify.judge import load_judge

CALIBRATING = 48
"""Prompts on whose completions a strength's KL is taken."""
GENERAL = 64
"""General prompts on which a candidate's disturbance is taken."""

Candidate = dict[str, Any]


class SteeringEvaluation(Evaluation):
    """Each persona's shift on held-out prompts against a prompt alone, and what it costs the suite at that strength."""

    bench: Any
    picked: dict[str, Candidate]
    factors: dict[str, float]

    def __init__(self, context: StageContext) -> None:
        super().__init__(context)
        data = context.data
        self.general = load_prompts(data / "general.jsonl")[:GENERAL]
        self.judges = {name: self.held(load_judge(data / name / "judge.yaml")) for name in self.stage.personas}
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
        alone = {one.name.removeprefix("share/"): one.value for one in measured if one.name.startswith("share/")}
        return measured + self._composed(step, alone)

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
        if self.stage.settings_of(name)["condition"]:
            measured += self._firing(name, candidate)
        self.bench.apply_random([candidate], self.context.seed_for(step, f"random {name}"))
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

    # ---- the composition -----------------------------------------------------------------------------------------

    @property
    def acting(self) -> list[str]:
        """Personas whose vectors act in what the stage hands on."""
        return [name for name, factor in self.factors.items() if factor]

    def joint_kl(self, names: Sequence[str]) -> float:
        """``steered_kl`` of what acts, over the widest of these personas' windows."""
        windows = [self.picked[name]["window"] for name in names]
        return self.steered_kl(names, None if None in windows else max(windows))

    def _composed(self, step: int, alone: Mapping[str, float]) -> list[Measurement]:
        """What the stage hands on, left acting for the suite that follows: each persona's shift, and the joint KL.

        ``alone``: each persona's share with its vector alone at a dial of 1.
        """
        acting = self.acting
        vectors, factors = [self.picked[name] for name in acting], [self.factors[name] for name in acting]
        measured: list[Measurement] = []
        if len(acting) > 1:
            self.bench.apply_random(vectors, self.context.seed_for(step, "random composition"), factors)
            measured += self._side_effects("side_effects_composed_floor", step)
        self.bench.apply(vectors, factors)
        if not acting:
            return measured
        before = {one.name: one for one in self._stored("before")}
        prompts: list[Conversation] = []
        samples: list[Completion] = []
        table = []
        for name in acting:
            prompts += self._heldout(name)
            samples += self.sampled(step, self._heldout(name), f"{name}, composed")
            share = shown(self.judges[name], samples[-len(self._heldout(name)) :], f"share_composed/{name}")
            left, by_prompt = before[f"share/{name}"], before[f"told/{name}"]
            strength = strength_of(f"composed_strength/{name}", left, by_prompt, share)
            measured += [share, strength] if self.factors[name] > 0 else [share]
            table.append({
                "persona": name, "factor": self.factors[name], "left alone": left.value, "by prompt": by_prompt.value,
                "its vector alone": alone[name], "composed": share.value, "broken": share.detail["broken"],
                "shift over the prompt's": strength.value,
            })  # fmt: skip
        says = f"Vectors acting together: {self.stage.compose or acting[0]}"
        measured.append(Measurement("composition", len(table), len(samples), detail={"says": says, "table": table}))
        for which, name in REFERENCES.items():
            measured += measure_kl(self._policy(), prompts, samples, to=which, name=name)
        budget = self.stage.kl_budget
        detail = {} if budget is None else {"says": f"budget {budget:g}", "budget": budget}
        return [*measured, Measurement("joint_kl", self.joint_kl(acting), CALIBRATING, detail=detail)]

    def _measure_all(self, when: When, step: int) -> list[Measurement]:
        """The composition acts while the suite is measured last: its side effects are that suite's drops."""
        measured = super()._measure_all(when, step)
        if when == "before" or not self.acting:
            return measured
        found = side_effects("side_effects_composed", self._stored("before"), measured)
        if found is not None:
            self._tell([found], when, step)
            measured.append(found)
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

        return [
            *worst("steering_strength", min), *worst("side_effects", max), *worst("wrong_way", max),
            *worst("composed_strength", min),
        ]  # fmt: skip


def told(prompt: Conversation, text: str) -> Conversation:
    """The conversation with ``text`` as its system prompt, before what that says already."""
    if prompt and prompt[0]["role"] == "system":
        return [{"role": "system", "content": f"{text}\n{prompt[0]['content']}"}, *prompt[1:]]
    return [{"role": "system", "content": text}, *prompt]


def _repeated(prompts: list[Conversation], wanted: int | None) -> list[Conversation]:
    """The different prompts in order, as often as needed for ``wanted`` of them: each is sampled afresh."""
    different = list({str(prompt): prompt for prompt in prompts}.values())
    return different if wanted is None else (different * (-(-wanted // len(different))))[:wanted]
