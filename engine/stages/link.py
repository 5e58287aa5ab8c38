"""The training loop's line to the stage: progress up, evaluations at their steps, checkpoints sealed, pauses obeyed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.runs.events import CheckpointEvent, StepEvent
from engine.stages.context import StageContext, relative_to_run
from engine.stages.interruption import Interrupted


class StageLink:
    """Implements engine.backends.interface.TrainingLink for one stage."""

    def __init__(self, context: StageContext, evaluate: Callable[[int], None]) -> None:
        self.context = context
        self._evaluate = evaluate
        self.interrupted: Interrupted | None = None

    def folder(self) -> Path:
        return self.context.folder

    def resume_from(self) -> tuple[Path, int] | None:
        """The newest checkpoint whose manifest holds; damaged ones are named in an alert and passed over."""
        newest = newest_checkpoint(self.context)
        self.context.results.forget_after(newest[1] if newest else 0, self.context.stage.steps)
        if newest is None:
            return None
        path, step = newest
        self.context.channel.emit(
            CheckpointEvent(action="restored", step=step, path=relative_to_run(self.context, path), reason="")
        )
        return path, step

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        self.context.channel.emit(StepEvent(step=step, total=total, values=dict(values)))

    def after_step(self, step: int, total: int) -> None:
        """Evaluations due at this step, on the first rank; they finish before the step's checkpoint is written, so
        a resume from that checkpoint never skips one."""
        if self.context.rank == 0 and step < total:
            self._evaluate(step)

    def wants_checkpoint(self, step: int, total: int) -> bool:
        stage = self.context.stage
        evaluated = stage.evaluation.every is not None and step % stage.evaluation.every == 0
        # Evaluated steps are kept too: the last whose gates passed is what a rollback goes back to.
        return step == total or step % stage.checkpoint.every == 0 or evaluated

    def stop_requested(self) -> bool:
        if self.interrupted is None and self.context.rank == 0:
            command = self.context.channel.pending()
            if command is not None:
                self.interrupted = Interrupted.by(command)
        return self.interrupted is not None

    def staging(self, step: int) -> Path:
        return self.context.checkpoints.staging(step)

    def seal(self, staging: Path, step: int) -> None:
        context = self.context
        meta = {"stage": context.index, "method": context.method, "step": step, "versions": context.backend.versions()}
        sealed = context.checkpoints.seal(staging, step, meta)
        context.channel.emit(
            CheckpointEvent(action="saved", step=step, path=relative_to_run(context, sealed), reason="")
        )
        for path in context.checkpoints.prune():
            context.channel.emit(
                CheckpointEvent(action="pruned", step=step, path=relative_to_run(context, path), reason="")
            )


def newest_checkpoint(context: StageContext) -> tuple[Path, int] | None:
    def invalid(path: Path, reason: str) -> None:
        name = relative_to_run(context, path)
        context.channel.emit(CheckpointEvent(action="invalid", step=0, path=name, reason=reason))
        context.alert("warning", "checkpoint-invalid", f"{name} is damaged ({reason}); an earlier one is used")

    found = context.checkpoints.newest_valid(invalid)
    return None if found is None else (found.path, found.step)
