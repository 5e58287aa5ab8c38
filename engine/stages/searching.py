"""The course of a stage that trains nothing: measure, search (or carry on), measure, decide the gates, hand on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.models.lineage import Lineage
from engine.runs.events import CheckpointEvent, StepEvent
from engine.stages.context import StageContext, relative_to_run
from engine.stages.evaluation import Evaluation
from engine.stages.gating import settle
from engine.stages.output import seal

SAID_EVERY = 10
"""Steps between two words to the supervisor that the search is safe up to here (it is after every step)."""


def load(context: StageContext, evaluation: Evaluation) -> Any:
    """The frozen policy; the evaluation gets it too."""
    context.phase("loading", context.lineage.base.id)
    evaluation.policy = context.open_policy(needs_reference=False)
    return evaluation.policy


def carry_on(context: StageContext, journal: Path, done: Sequence[Mapping[str, float]]) -> None:
    """Tell the steps that an earlier attempt finished and whose events a kill may have lost. ``done``: their values."""
    if not done:
        return
    told = min(context.run.state().stages[context.index].steps_done if context.run.events.is_file() else 0, len(done))
    context.channel.emit(CheckpointEvent(action="restored", step=told, path=relative_to_run(context, journal)))
    for step in range(told + 1, len(done) + 1):
        tell_step(context, journal, step, done[step - 1])


def tell_step(context: StageContext, journal: Path, step: int, values: Mapping[str, float]) -> None:
    """A finished step of the search: it is in the journal already."""
    total = context.stage.steps
    context.channel.emit(StepEvent(step=step, total=total, values=dict(values)))
    context.tell_outlook()  # an edited model writes more or less than it did, and the search is what shows it
    if step % SAID_EVERY == 0 or step == total:
        context.channel.emit(CheckpointEvent(action="saved", step=step, path=relative_to_run(context, journal)))


def finish(context: StageContext, evaluation: Evaluation, hand_on: Callable[[Path], Lineage]) -> bool:
    """Measure after, decide the gates, seal the output. Returns whether all gates passed."""
    results, passed = settle(context, *evaluation.gates(evaluation.after()), context.stage.steps)
    back = not passed and context.recipe.on_gate_fail == "rollback"
    if back:
        context.alert("warning", "rollback", "a gate failed: the stage hands on what it was given, unchanged")
    context.phase("saving", "the stage's output")
    seal(context, (lambda _draft: context.lineage) if back else hand_on, results, passed)
    return passed


def entry(context: StageContext, draft: Path, file: str, **facts: Any) -> dict[str, Any]:
    """A lineage entry for a file in the output's draft: its path once the draft is renamed, and its sha256."""
    home = context.output.relative_to(context.run.path)
    digest = hashlib.sha256((draft / file).read_bytes()).hexdigest()
    return {"method": context.method, "path": str(home / file), "sha256": digest, **facts}
