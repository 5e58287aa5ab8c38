"""DPO: prefer the chosen completion over the rejected one, close to where the stage began."""

from __future__ import annotations

from engine.data.prepare import load_preferences
from engine.stages.context import StageContext
from engine.stages.preference import PreferenceEvaluation
from engine.stages.training import run_training_stage


def run(context: StageContext) -> bool:
    return run_training_stage(
        context,
        PreferenceEvaluation(context),
        lambda policy: load_preferences(context.data / "train.jsonl"),
        needs_reference=True,
    )
