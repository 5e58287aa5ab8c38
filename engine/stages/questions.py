"""Questions put to the model: its greedy answers with their log-probabilities, kept so that a resume asks none twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.backends.interface import Policy
from engine.data.formats import Question
from engine.evaluate.calibration import TEMPERATURES, Answered
from engine.stages.context import StageContext
from engine.verify.answers import matches


@dataclass(frozen=True)
class Answer:
    """A greedy answer. A question that has no answer is never answered rightly."""

    text: str
    right: bool
    tokens: int
    logprobs: tuple[float, ...]

    def answered(self) -> Answered:
        return Answered(self.right, self.tokens, self.logprobs)


def ask(context: StageContext, policy: Policy, questions: Sequence[Question], name: str, detail: str) -> list[Answer]:
    """Answer every question greedily; kept as ``<name>`` among the stage's evaluations."""

    def measure() -> list[Any]:
        prompts = [list(question.prompt) for question in questions]
        completions = policy.generate(
            prompts,
            max_new_tokens=context.stage.evaluation.max_new_tokens,
            temperature=0.0,
            seed=context.seed_for(0, name),
            progress=context.phase("evaluating", detail, "answers"),
        )
        logprobs = policy.tempered_logprobs(
            prompts, completions, TEMPERATURES, progress=context.phase("evaluating", f"confidence: {detail}", "answers")
        )
        return [
            [
                completion.text,
                question.answer is not None and completion.finished and matches(completion.text, question.answer),
                len(completion.tokens),
                values,
            ]
            for question, completion, values in zip(questions, completions, logprobs, strict=True)
        ]

    rows = context.results.value(name, measure)
    return [Answer(text, right, tokens, tuple(values)) for text, right, tokens, values in rows]
