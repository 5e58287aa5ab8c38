"""GRPO: several completions of each prompt, rewarded by a verifier; what is better than its group becomes likelier."""

from __future__ import annotations

from engine.stages.context import StageContext
from engine.stages.rewarded import RewardEvaluation, run_rewarded


def run(context: StageContext) -> bool:
    return run_rewarded(context, RewardEvaluation(context))
