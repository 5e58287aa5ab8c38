"""The training loop's line to the stage: progress up, evaluations at their steps, checkpoints sealed, pauses obeyed."""

from __future__ import annotations

from pathlib import Path

from engine.backends.interface import Probe
from engine.forecast.launch import forecast_of
from engine.runs.events import AlertEvent, CheckpointEvent, MetricEvent, SampleEvent, StepEvent
from engine.stages.context import StageContext, relative_to_run
from engine.stages.evaluation import Evaluation
from engine.stages.interruption import Interrupted


class StageLink:
    """Implements engine.backends.interface.TrainingLink for one stage."""

    def __init__(self, context: StageContext, evaluation: Evaluation) -> None:
        self.context = context
        self._evaluation = evaluation
        self.interrupted: Interrupted | None = None

    def folder(self) -> Path:
        return self.context.folder

    def resume_from(self) -> tuple[Path, int] | None:
        """The newest checkpoint whose manifest holds; damaged ones are named in an alert and passed over."""
        newest = newest_checkpoint(self.context)
        if self.context.rank == 0:  # two ranks would get in each other's way
            self.context.results.forget_after(newest[1] if newest else 0, self.context.stage.steps)
        if newest is None:
            return None
        path, step = newest
        self._evaluation.load_history(path)
        self.context.channel.emit(
            CheckpointEvent(action="restored", step=step, path=relative_to_run(self.context, path), reason="")
        )
        return path, step

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        self.context.channel.emit(StepEvent(step=step, total=total, values=dict(values)))
        self.context.work.step(values)
        self._evaluation.remember(step, values)

    def measured_longest(self, rows: int, length: int, memory_mib: float, seconds: float) -> None:
        """The first thing a stage does: its longest micro-batch, measured, beside what was forecast for it."""
        context = self.context
        found = forecast_of(context.recipe, context.stage, context.index, Path(context.base_folder()), length)
        context.channel.emit(
            AlertEvent(
                level="info",
                code="launch-probe",
                text=f"the longest micro-batch ({rows} x {length} tokens) took {memory_mib:.0f} MiB in {seconds:.2f} s"
                + (f"; {found['low_mib']:.0f} to {found['high_mib']:.0f} MiB were forecast" if found else ""),
                detail={
                    "rows": rows,
                    "length": length,
                    "memory_mib": memory_mib,
                    "seconds": seconds,
                    "forecast": found,
                },
            )
        )

    def after_step(self, step: int, total: int) -> None:
        """Evaluations due at this step, on the first rank; they finish before the step's checkpoint is written, so
        a resume from that checkpoint never skips one."""
        if self.context.rank == 0 and step < total:
            self._evaluation.during(step)

    def wants_checkpoint(self, step: int, total: int) -> bool:
        stage = self.context.stage
        self.context.work.between_steps()
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
        self._evaluation.save_history(staging)
        meta = {"stage": context.index, "method": context.method, "step": step, "versions": context.backend.versions()}
        sealed = context.checkpoints.seal(staging, step, meta)
        context.work.between_steps()
        context.channel.emit(
            CheckpointEvent(action="saved", step=step, path=relative_to_run(context, sealed), reason="")
        )
        for path in context.checkpoints.prune():
            context.channel.emit(
                CheckpointEvent(action="pruned", step=step, path=relative_to_run(context, path), reason="")
            )

    def sample(self, step: int, prompt: str, completion: str, values: dict[str, float]) -> None:
        """A completion of the training itself, with what it was given for it."""
        self.context.channel.emit(
            SampleEvent(step=step, prompt=prompt, completion=completion, values={**values}, label="training")
        )

    # ---- methods with a trust region -----------------------------------------------------------------------------

    def probe(self, step: int) -> Probe:
        return self._evaluation.probe(step)

    def probed(self, step: int, probe: Probe, held: bool) -> None:
        """Tell what a probe found, and in words when the policy was put back."""
        kept = "" if probe.retention is None else f", retention {probe.retention:.1%}"
        self.context.channel.emit(MetricEvent(name="probe_kl", value=probe.kl, n=probe.n, step=step, when="during"))
        if not held:
            self.context.alert(
                "warning",
                "step-back",
                f"step {step} left the trust region (KL {probe.kl:.3f}{kept}): back to the last probe that held, with "
                "twice the penalty and a lower learning rate",
                kl=probe.kl,
            )


def newest_checkpoint(context: StageContext) -> tuple[Path, int] | None:
    def invalid(path: Path, reason: str) -> None:
        name = relative_to_run(context, path)
        context.channel.emit(CheckpointEvent(action="invalid", step=0, path=name, reason=reason))
        context.alert("warning", "checkpoint-invalid", f"{name} is damaged ({reason}); an earlier one is used")

    found = context.checkpoints.newest_valid(invalid, set_aside=context.rank == 0)
    return None if found is None else (found.path, found.step)
