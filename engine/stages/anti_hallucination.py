"""Anti-hallucination: find out what the model knows, teach it to answer that and to abstain on the rest.

R-Tuning (Zhang et al. 2023): what counts as known is what the model answers rightly before training, fixed then. At the
end the confidence of what it still answers is calibrated anew.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from engine.backends.interface import Conversation, Policy
from engine.data.formats import Question
from engine.data.prepare import load_general, load_rows
from engine.evaluate.calibration import Answered, changes, fit_confidence, measure_calibration
from engine.evaluate.drift import mean_length
from engine.evaluate.measurement import Measurement, rate
from engine.stages.context import StageContext, derived_seed
from engine.stages.evaluation import Evaluation, When
from engine.stages.questions import Answer, ask
from engine.stages.sft import replay_rows
from engine.stages.training import run_training_stage
from engine.verify.answers import matches, normalise


def run(context: StageContext) -> bool:
    evaluation = KnowingEvaluation(context)
    return run_training_stage(
        context, evaluation, lambda policy: training_rows(context, policy, evaluation.questions), needs_reference=False
    )


def training_rows(context: StageContext, policy: Any, questions: Sequence[Question]) -> list[Conversation]:
    """Known questions with their answers, the others with the abstention, and replay."""
    known = known_to(context, policy, questions, "known-train")
    rows: list[Conversation] = [
        [
            *question.prompt,
            {"role": "assistant", "content": (question.answer if knows else None) or _abstention(context)},
        ]
        for question, knows in zip(questions, known, strict=True)
    ]
    sources = load_general(context.data, "replay") if context.stage.replay.share else []
    mixed = rows + replay_rows(context, policy, sources, len(rows))
    random.Random(derived_seed(context.recipe.seed, context.index, "mix")).shuffle(mixed)
    return mixed


def known_to(context: StageContext, policy: Policy, questions: Sequence[Question], name: str) -> list[bool]:
    """Whether the model answers each question rightly in at least half of its greedy and sampled answers; asked once."""

    def measure() -> list[bool]:
        prompts = [list(question.prompt) for question in questions]
        rights = [0] * len(questions)
        samples = context.stage.samples
        for number in range(samples + 1):
            completions = policy.generate(
                prompts,
                max_new_tokens=context.stage.evaluation.max_new_tokens,
                temperature=1.0 if number else 0.0,
                seed=context.seed_for(number, name),
                progress=context.phase("evaluating", f"what it knows, {number + 1} of {samples + 1}", "answers"),
            )
            for place, (question, completion) in enumerate(zip(questions, completions, strict=True)):
                right = question.answer is not None and completion.finished
                rights[place] += right and matches(completion.text, question.answer or "")
        return [2 * count >= samples + 1 for count in rights]

    return context.results.value(name, measure)


def _abstention(context: StageContext) -> str:
    return context.stage.abstention


class KnowingEvaluation(Evaluation):
    """Abstention on the unknown, accuracy on the known, and the calibration of what is answered."""

    def __init__(self, context: StageContext) -> None:
        super().__init__(context)
        self.questions = self._load("train")
        self.heldout = self._load("heldout")

    def _load(self, name: str) -> list[Question]:
        return [row for row in load_rows(self.context.data / f"{name}.jsonl") if isinstance(row, Question)]

    def unmeasured(self, gate: str) -> str:
        if gate == "abstention_precision":
            return "the model never abstained"
        return super().unmeasured(gate)

    def sample_prompts(self) -> Sequence[Conversation]:
        return [list(question.prompt) for question in self.heldout]

    def abstains(self, answer: Answer) -> bool:
        return normalise(self.stage.abstention) in normalise(answer.text)

    def measure(self, when: When, step: int) -> list[Measurement]:
        policy, context = self._policy(), self.context
        known = known_to(context, policy, self.heldout, "known-heldout")
        answers = ask(context, policy, self.heldout, f"answers-{step:06d}", f"held-out answers, {when}")
        measured = knowing(known, answers, [self.abstains(answer) for answer in answers])
        prompts = [list(question.prompt) for question in self.heldout][: self.stage.evaluation.prompts]
        samples = self.sampled(step, prompts, f"sampled completions, {when}")
        if when == "before":
            measured.append(Measurement("completion_length", mean_length(samples), len(samples)))
            return measured + measure_calibration(_answered(answers), context.lineage.confidence)
        measured += self.drift(prompts, samples)
        still = [answer for answer in answers if not self.abstains(answer)]
        if when == "after" and still:
            settings = self._refit(step)
            measured += measure_calibration(_answered(still), settings)
            start = ask(context, policy, self.heldout, f"answers-{0:06d}", "held-out answers, before")
            measured += changes(
                _answered(start), context.lineage.confidence, _answered(still), settings,
                context.seed_for(step, "bootstrap"),
            )  # fmt: skip
        return measured

    def derived(self, measured: Sequence[Measurement]) -> list[Measurement]:
        before = {one.name: one for one in self._stored("before")}
        after = {one.name: one for one in measured}
        was, now = before["accuracy_known"], after["accuracy_known"]
        kept = now.value / was.value if was.value else 0.0
        return [Measurement("accuracy_kept", kept, now.n, detail={"says": f"{was.value:.1%} -> {now.value:.1%}"})]

    def _refit(self, step: int) -> dict[str, Any]:
        """Confidence settings from the training questions that it still answers."""
        answers = ask(self.context, self._policy(), self.questions, f"answers-train-{step:06d}", "answers to fit on")
        still = [answer for answer in answers if not self.abstains(answer)]
        settings = fit_confidence(_answered(still)) if still else {"temperature": 1.0}
        return self.context.results.value(f"confidence-{step:06d}", lambda: settings | {"n": len(still)})

    def confidence(self) -> dict[str, Any] | None:
        return self.context.results.stored_value(f"confidence-{self.stage.steps:06d}")


def knowing(known: Sequence[bool], answers: Sequence[Answer], abstained: Sequence[bool]) -> list[Measurement]:
    """Abstention recall and precision, accuracy on the known, and the wrong among the answered; n in questions."""
    unknown = [silent for knows, silent in zip(known, abstained, strict=True) if not knows]
    silent_on = [not knows for knows, silent in zip(known, abstained, strict=True) if silent]
    right = [answer.right for knows, answer in zip(known, answers, strict=True) if knows]
    wrong = [not answer.right for answer, silent in zip(answers, abstained, strict=True) if not silent]
    measured = [
        rate("abstention_recall", sum(unknown), len(unknown), unit="unknown questions"),
        rate("accuracy_known", sum(right), len(right), unit="known questions"),
        rate("hallucination_rate", sum(wrong), len(wrong), unit="answered questions"),
    ]
    if silent_on:  # without a single abstention there is nothing to be precise about
        measured.append(rate("abstention_precision", sum(silent_on), len(silent_on), unit="abstentions"))
    return measured


def _answered(answers: Sequence[Answer]) -> list[Answered]:
    return [answer.answered() for answer in answers]
