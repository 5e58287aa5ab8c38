"""ORPO: learn the chosen completions and prefer them over the rejected ones at once, without a reference in the loss."""

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
        needs_reference=True,  # for the gauges and gates; with LoRA it is the adapter left out, or a copy of it
    )
