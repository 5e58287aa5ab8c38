"""CPO, Conservative Policy Optimization: prefer the chosen, and provably stay where the stage began."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from engine.backends.interface import Conversation, Probe
from engine.data.formats import Preference
from engine.data.prepare import load_general, load_preferences
from engine.evaluate.drift import measure_kl
from engine.evaluate.measurement import Measurement
from engine.evaluate.retention import load_suite, measure_suite, retention
from engine.stages.context import StageContext, derived_seed
from engine.stages.general import own_answers
from engine.stages.preference import PreferenceEvaluation
from engine.stages.training import run_training_stage

ANCHOR_SOURCES = 1000
"""Most general prompts that are answered for anchors."""


@dataclass(frozen=True)
class PairsAndAnchors:
    pairs: list[Preference]
    anchors: list[Conversation]


def run(context: StageContext) -> bool:
    evaluation = ConservativeEvaluation(context)
    return run_training_stage(context, evaluation, lambda policy: training_rows(context, policy), needs_reference=True)


def training_rows(context: StageContext, policy: Any) -> PairsAndAnchors:
    pairs = load_preferences(context.data / "train.jsonl")
    sources = load_general(context.data, "anchors")
    random.Random(derived_seed(context.recipe.seed, context.index, "anchors")).shuffle(sources)
    anchors = own_answers(context, policy, "anchors", sources[:ANCHOR_SOURCES]) if sources else []
    if sources and not anchors:
        context.alert("warning", "no-anchors", "the model ended none of its answers to the general prompts: no anchors")
    return PairsAndAnchors(pairs, anchors)


class ConservativeEvaluation(PreferenceEvaluation):
    """As every preference stage; and the probes of the trust region, on prompts that no gate looks at."""

    def __init__(self, context: StageContext) -> None:
        super().__init__(context)
        region = self.stage.trust_region
        pairs = load_preferences(context.data / "train.jsonl")
        prompts = list({str(pair.prompt): list(pair.prompt) for pair in pairs}.values())
        random.Random(derived_seed(context.recipe.seed, context.index, "probe")).shuffle(prompts)
        self.probe_prompts: list[Conversation] = prompts[: region.prompts]
        self.probe_suite = load_suite(context.run.suite, region.suite_n)

    def before(self) -> list[Measurement]:
        measured = super().before()
        if self.probe_suite:
            self.context.results.measured(
                "probe-suite",
                lambda: measure_suite(self._policy(), self.probe_suite, self.context.seed_for(0, "suite")),
            )
        return measured

    def probe(self, step: int) -> Probe:
        """Divergence on completions sampled now, and what is left of a part of the suite."""
        measured = {
            one.name: one for one in self.context.results.measured(f"probe-{step:06d}", lambda: self._look(step))
        }
        kept = measured.get("retention")
        return Probe(measured["kl"].value, None if kept is None else kept.value, measured["kl"].n)

    def _look(self, step: int) -> list[Measurement]:
        policy, context = self._policy(), self.context
        samples = policy.generate(
            self.probe_prompts,
            max_new_tokens=self.stage.evaluation.max_new_tokens,
            temperature=1.0,
            seed=context.seed_for(step, "probe"),
        )
        measured = measure_kl(policy, self.probe_prompts, samples, to="start", name="kl")
        if self.probe_suite:
            suite = measure_suite(policy, self.probe_suite, context.seed_for(step, "suite"))
            measured += retention(self._stored("probe-suite"), suite)
        return measured
