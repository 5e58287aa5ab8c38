"""The course of every training stage: evaluate, train (or carry on), evaluate, decide the gates, hand on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

from engine.runs.events import CheckpointEvent
from engine.stages.context import StageContext, relative_to_run
from engine.stages.evaluation import Evaluation
from engine.stages.gating import settle
from engine.stages.link import StageLink, newest_checkpoint
from engine.stages.output import seal_output


def run_training_stage(
    context: StageContext,
    evaluation: Evaluation,
    rows: Callable[[Any], Any],
    *,
    needs_reference: bool,
) -> bool:
    """Run the stage to its end and return whether its gates passed.

    ``rows`` is called with the loaded policy before training and gives the normalized training rows (a stage may have
    to generate some first). Raises Interrupted when paused, stopped or out of disk space. The evaluation is closed.
    """
    with closing(evaluation):
        return _run(context, evaluation, rows, needs_reference)


def _run(context: StageContext, evaluation: Evaluation, rows: Callable[[Any], Any], needs_reference: bool) -> bool:
    context.phase("loading", context.lineage.base.id)
    policy = context.open_policy(needs_reference)
    evaluation.policy = policy
    if context.rank == 0:
        evaluation.before()
    training_rows = rows(policy)
    _train(context, evaluation, policy, training_rows)
    if context.rank != 0:
        return True
    measured = evaluation.after()
    results, passed = settle(context, *evaluation.gates(measured), context.stage.steps)
    if passed:
        context.checkpoints.mark_passed(context.stage.steps)
    rolled_back_to_start = not passed and context.recipe.on_gate_fail == "rollback" and not _roll_back(context, policy)
    context.phase("saving", "the stage's output")
    rolled_back = not passed and context.recipe.on_gate_fail == "rollback"
    confidence = None if rolled_back else evaluation.confidence()  # it was fitted on the weights of the last step
    seal_output(context, None if rolled_back_to_start else policy, results, passed, confidence=confidence)
    return passed


def _train(context: StageContext, evaluation: Evaluation, policy: Any, rows: Any) -> None:
    newest = newest_checkpoint(context)
    if newest is not None and newest[1] >= context.stage.steps:
        # Trained to the end, and interrupted after that: only the weights are needed.
        context.channel.emit(
            CheckpointEvent(action="restored", step=newest[1], path=relative_to_run(context, newest[0]), reason="")
        )
        policy.freeze_start()
        policy.load_trained(newest[0])
        evaluation.load_history(newest[0])
        return
    context.phase("training", context.method, "steps")
    context.tell_outlook()
    link = StageLink(context, evaluation)
    context.backend.train(context.method, policy, rows, context.stage, link)
    if link.interrupted is not None:
        raise link.interrupted


def _roll_back(context: StageContext, policy: Any) -> bool:
    """Put the weights of the last checkpoint whose gates passed back. False if there is none: then the stage hands on
    what it was given."""
    passed = context.checkpoints.newest_passed()
    if passed is None:
        context.alert("warning", "rollback", "a gate failed: the stage hands on what it was given, unchanged")
        return False
    policy.load_trained(passed.path)
    context.alert("warning", "rollback", f"a gate failed: back to step {passed.step}, the last whose gates passed")
    return True
