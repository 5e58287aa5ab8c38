"""Calibration: measure how far the model's confidence can be trusted, fit a temperature to it, hand that on."""

from __future__ import annotations

from engine.data.formats import Question
from engine.data.prepare import load_rows
from engine.evaluate.calibration import changes, fit_confidence, measure_calibration
from engine.evaluate.gates import decide
from engine.evaluate.measurement import rate
from engine.runs.events import StepEvent
from engine.stages.context import StageContext
from engine.stages.evaluation import tell
from engine.stages.gating import limits_of, settle
from engine.stages.output import seal_output
from engine.stages.questions import ask


def run(context: StageContext) -> bool:
    """Nothing trains: the answers stay as they are, what is said of their certainty changes."""
    stage = context.stage
    context.phase("loading", context.lineage.base.id)
    policy = context.open_policy(needs_reference=False)
    rows = {
        name: [row for row in load_rows(context.data / f"{name}.jsonl") if isinstance(row, Question)]
        for name in ("train", "heldout")
    }
    fitted = [a.answered() for a in ask(context, policy, rows["train"], "answers-fit", "answers to fit on")]
    heldout = [a.answered() for a in ask(context, policy, rows["heldout"], "answers-heldout", "held-out answers")]
    before = context.lineage.confidence
    accuracy = rate("accuracy", sum(answer.correct for answer in heldout), len(heldout), unit="rows")
    tell(context, [accuracy, *measure_calibration(heldout, before)], "before", 0)
    settings = fit_confidence(fitted, stage.by)
    settings["n"] = len(fitted)
    context.channel.emit(StepEvent(step=1, total=1, values={"temperature": settings["temperature"]}))
    measured = measure_calibration(heldout, settings)
    change = changes(heldout, before, heldout, settings, context.seed_for(1, "bootstrap"))
    tell(context, [*measured, *change], "after", 1)
    results, missing = decide(limits_of(stage.gates), {one.name: one for one in [accuracy, *measured, *change]})
    results, passed = settle(context, results, dict.fromkeys(missing, "it is no figure of this stage"), 1)
    context.phase("saving", "the confidence settings")
    kept = settings if passed or context.recipe.on_gate_fail != "rollback" else before
    seal_output(context, None, results, passed, confidence=kept)
    return passed
