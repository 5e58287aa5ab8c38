"""What every preference stage is judged by, whatever objective trains it."""

from __future__ import annotations

from collections.abc import Sequence

from engine.backends.interface import Conversation
from engine.data.prepare import load_preferences
from engine.evaluate.drift import mean_length
from engine.evaluate.gates import gain
from engine.evaluate.measurement import Measurement
from engine.evaluate.preference import log_ratios, preference_gap, preferred_share
from engine.stages.context import StageContext
from engine.stages.evaluation import Evaluation, When
from engine.verify.judge import load_judge


class PreferenceEvaluation(Evaluation):
    """Preference gap on held-out pairs; KL, length and preferred share on what the policy itself writes; retention."""

    def __init__(self, context: StageContext) -> None:
        super().__init__(context)
        pairs = load_preferences(context.data / "heldout.jsonl")
        self.pair_prompts: list[Conversation] = [list(pair.prompt) for pair in pairs]
        self.chosen = [pair.chosen for pair in pairs]
        self.rejected = [pair.rejected for pair in pairs]
        distinct = {str(prompt): prompt for prompt in self.pair_prompts}
        self.prompts: list[Conversation] = list(distinct.values())
        judge = context.data / "judge.yaml"
        self.judge = self.held(load_judge(judge)) if judge.is_file() else None
        if self.judge is None and context.rank == 0:
            context.alert(
                "info",
                "no-judge",
                "no judge is named in the recipe: the preferred share is not measured and its gates are off",
            )

    def sample_prompts(self) -> Sequence[Conversation]:
        return self.prompts

    def excused(self, gate: str) -> bool:
        """Without a judge (said once, above) nothing tells what a completion shows."""
        return self.judge is None and gate in ("preferred_share_gain", "broken_share", "preferred_share")

    def measure(self, when: When, step: int) -> list[Measurement]:
        policy = self._policy()
        phase = self.context.phase
        start = self.context.results.value("start-scores", self._start_scores)
        measured: list[Measurement] = []
        if when != "before":  # at the start every ratio is zero by definition
            ratios = log_ratios(
                policy,
                self.pair_prompts,
                self.chosen,
                self.rejected,
                start,
                phase("evaluating", f"preference gap, {when}", "pairs"),
            )
            measured += preference_gap(ratios)
        prompts = self._sampling_prompts()
        samples = self.sampled(step, prompts, f"sampled completions, {when}")
        if self.judge is not None:
            measured += preferred_share(self.judge, samples)
        if when == "before":
            measured.append(Measurement("completion_length", mean_length(samples), len(samples)))
        else:
            measured += self.drift(prompts, samples)
        return measured

    def derived(self, measured: Sequence[Measurement]) -> list[Measurement]:
        if self.judge is None:
            return []
        before = {one.name: one for one in self._stored("before")}
        after = {one.name: one for one in measured}
        return [gain("preferred_share", before["preferred_share"], after["preferred_share"])]

    def _sampling_prompts(self) -> list[Conversation]:
        """Held-out prompts, repeated when there are fewer than the evaluation asks for: each is sampled afresh."""
        wanted = self.stage.evaluation.prompts
        repeats = -(-wanted // len(self.prompts))
        return (self.prompts * repeats)[:wanted]

    def _start_scores(self) -> list[tuple[float, float]]:
        """(log pi_start(chosen), log pi_start(rejected)) of the held-out pairs, while the policy still is the start."""
        policy = self._policy()
        progress = self.context.phase("evaluating", "the start's log-probabilities", "pairs")
        chosen = policy.score(self.pair_prompts, self.chosen, progress=progress)
        rejected = policy.score(self.pair_prompts, self.rejected, progress=progress)
        return [(good.logprob, bad.logprob) for good, bad in zip(chosen, rejected, strict=True)]
