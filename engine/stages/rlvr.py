"""RLVR: like GRPO, with every reasoning step verified, not the final answer alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from engine.backends.interface import Completion
from engine.evaluate.measurement import Measurement, mean
from engine.stages.context import StageContext
from engine.stages.rewarded import RewardEvaluation, run_rewarded
from engine.verify.interface import StepVerifier
from engine.verify.steps import step_score


def run(context: StageContext) -> bool:
    return run_rewarded(context, StepEvaluation(context))


class StepEvaluation(RewardEvaluation):
    def correctness(self, greedy: Sequence[Completion]) -> list[Measurement]:
        verifier = cast(StepVerifier, self.verifier)
        steps = verifier.steps(self.asked, [completion.text for completion in greedy], self.answers)
        shares = [
            step_score(found, verifier.required(prompt, answer))
            for found, prompt, answer in zip(steps, self.asked, self.answers, strict=True)
        ]
        return [mean("step_correctness", shares, unit="prompts"), *super().correctness(greedy)]
