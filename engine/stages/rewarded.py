"""What the stages with verified rewards share: their questions, their verifier, and the reward on held-out prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.backends.interface import Completion, Conversation
from engine.data.formats import Question
from engine.data.prepare import load_rows
from engine.data.verifiable import kept
from engine.data.verifier_files import FOLDER, kept_spec
from engine.evaluate.drift import mean_length
from engine.evaluate.measurement import Measurement, mean, rate
from engine.evaluate.statistics import rising_trend
from engine.stages.context import StageContext
from engine.stages.evaluation import Evaluation, When
from engine.stages.training import run_training_stage
from engine.verify.interface import Verifier
from engine.verify.registry import open_verifier

SOLVED = 0.9
"""Mean reward from which a step no longer counts for the advantage variance: a solved task has silent groups."""
QUICK_PROMPTS = 128
"""Held-out prompts that are sampled for one point of the reward's trend."""


@dataclass(frozen=True)
class RewardedRows:
    questions: list[Question]
    verifier: Verifier


def load_questions(context: StageContext, name: str) -> list[Question]:
    return [row for row in load_rows(context.data / f"{name}.jsonl") if isinstance(row, Question)]


class RewardEvaluation(Evaluation):
    """Reward on completions sampled afresh and its trend; the share right, greedy; drift; retention."""

    kept_gauges = ("reward", "advantage_variance")

    def __init__(self, context: StageContext) -> None:
        super().__init__(context)
        self.heldout = load_questions(context, "heldout")
        self.asked = [question.prompt[-1]["content"] for question in self.heldout]
        self.answers = [question.answer or "" for question in self.heldout]
        self.prompts: list[Conversation] = [list(question.prompt) for question in self.heldout]
        self.verifier = open_verifier(kept_spec(self.stage.verifier.model_dump()), context.data / FOLDER)

    def sample_prompts(self) -> Sequence[Conversation]:
        return self.prompts

    def before(self) -> list[Measurement]:
        def told() -> list[Measurement]:
            found = kept(self.context.data)
            return [rate("verifiability", round(found.share * found.n), found.n, unit="prompts")]

        self._tell(self.context.results.measured("verifiability", told), "before", 0)
        return super().before()

    # ---- figures -------------------------------------------------------------------------------------------------

    def quick(self, step: int) -> list[Measurement]:
        return [self._reward(step, QUICK_PROMPTS)[0]]

    def measure(self, when: When, step: int) -> list[Measurement]:
        phase = self.context.phase
        reward, samples, prompts = self._reward(step, self.stage.evaluation.prompts, f"sampled completions, {when}")
        greedy = self._policy().generate(
            self.prompts,
            max_new_tokens=self.stage.max_new_tokens,
            temperature=0.0,
            seed=self.context.seed_for(step, "greedy"),
            progress=phase("evaluating", f"held-out answers, {when}", "answers"),
        )
        measured = [reward, *self.correctness(greedy)]
        cut = sum(not completion.finished for completion in samples)
        measured.append(rate("clipped_share", cut, len(samples), unit="completions"))
        if when == "before":
            measured.append(Measurement("completion_length", mean_length(samples), len(samples)))
        else:
            measured += self.drift(prompts, samples)
        return measured

    def correctness(self, greedy: Sequence[Completion]) -> list[Measurement]:
        verdicts = self.verifier.verify(self.asked, [completion.text for completion in greedy], self.answers)
        right = sum(verdict.correctness >= 1.0 for verdict in verdicts)
        return [rate("final_correctness", right, len(verdicts), unit="prompts")]

    def _reward(
        self, step: int, wanted: int, detail: str = ""
    ) -> tuple[Measurement, list[Completion], list[Conversation]]:
        """Mean verifier reward of completions sampled at temperature 1 for the first ``wanted`` held-out prompts."""
        prompts = self.prompts[:wanted]
        samples = self._policy().generate(
            prompts,
            max_new_tokens=self.stage.max_new_tokens,
            temperature=1.0,
            seed=self.context.seed_for(step, "samples"),
            progress=self.context.phase("evaluating", detail, "completions") if detail else None,
        )
        texts = [completion.text for completion in samples]
        verdicts = self.verifier.verify(self.asked[:wanted], texts, self.answers[:wanted])
        return mean("reward", [verdict.reward for verdict in verdicts], unit="completions"), samples, prompts

    def excused(self, gate: str) -> bool:
        """The variance of a task that was solved in every step: its groups are silent."""
        solved = [values.get("reward", 0.0) >= SOLVED for values in self.history.values()]
        return gate == "advantage_variance" and bool(solved) and all(solved)

    def derived(self, measured: Sequence[Measurement]) -> list[Measurement]:
        before = next(one for one in self._stored("before") if one.name == "reward")
        after = next(one for one in measured if one.name == "reward")
        points = [before.value, *self._stored_quick("reward"), after.value]
        trend = rising_trend(points)
        says = f"{points[0]:.3f} -> {points[-1]:.3f} over {len(points)} points, Mann-Kendall p {trend:.2g}"
        figures = [Measurement("reward_trend", trend, len(points), detail={"says": says})]
        figures += self._stored("verifiability")
        unsolved = [
            values["advantage_variance"]
            for values in self.history.values()
            if values.get("reward", 1.0) < SOLVED and "advantage_variance" in values
        ]
        if unsolved:
            figures.append(mean("advantage_variance", unsolved, says="mean over the steps before the task was solved"))
        return figures


def run_rewarded(context: StageContext, evaluation: RewardEvaluation) -> bool:
    """The course of a stage with verified rewards; the verifier's processes end with it, however it ends."""
    try:
        return run_training_stage(
            context,
            evaluation,
            lambda policy: RewardedRows(load_questions(context, "train"), evaluation.verifier),
            needs_reference=True,  # the divergence is measured, whatever it weighs
        )
    finally:
        evaluation.verifier.close()
