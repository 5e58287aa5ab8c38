"""RLVR: like GRPO, with every reasoning step verified, not the final answer alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, cast

from engine.backends.interface import Completion
from engine.evaluate.measurement import Measurement, mean
from engine.stages.context import StageContext
from engine.stages.rewarded import RewardEvaluation, load_questions, run_rewarded
from engine.verify.check_steps import check_steps
from engine.verify.interface import StepVerifier
from engine.verify.steps import step_score


def run(context: StageContext) -> bool:
    return run_rewarded(context, StepEvaluation(context))


class StepEvaluation(RewardEvaluation):
    def _check_verifier(self) -> None:
        """With the answers the steps: one that accepts wrong ones would reward them."""
        super()._check_verifier()
        questions = load_questions(self.context, "train")
        prompts = [question.prompt[-1]["content"] for question in questions]
        answers = [question.answer or "" for question in questions]
        verifier, recipe = cast(StepVerifier, self.verifier), str(self.context.run.recipe)
        field = f"stages.{self.context.index}.verifier"

        def told(text: str) -> None:
            self.context.alert("warning", "step_verifiability", text)

        def tried() -> dict[str, Any]:  # once, whatever is resumed
            return asdict(check_steps(verifier, prompts, answers, recipe, field, told))

        self.context.results.value("step-verifiability", tried)

    def correctness(self, greedy: Sequence[Completion]) -> list[Measurement]:
        verifier = cast(StepVerifier, self.verifier)
        steps = verifier.steps(self.asked, [completion.text for completion in greedy], self.answers)
        shares = [
            step_score(found, verifier.required(prompt, answer))
            for found, prompt, answer in zip(steps, self.asked, self.answers, strict=True)
        ]
        return [mean("step_correctness", shares, unit="prompts"), *super().correctness(greedy)]
