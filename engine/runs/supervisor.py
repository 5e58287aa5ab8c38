"""The supervisor: ``python -P -m engine.runs.supervisor RUN_DIR``. Light, detached, the only writer of the event log."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from engine.backends import resolve
from engine.hardware.device import device_name
from engine.report import write_report
from engine.runs import control
from engine.runs.awake import Awake
from engine.runs.blas import openblas
from engine.runs.child import Child, ChildResult
from engine.runs.directory import RunDirectory, home
from engine.runs.events import AlertEvent, CheckpointEvent, Event, ExitEvent, RunEvent, StageEvent
from engine.runs.exitcodes import BAD_INPUT, DISK_FULL, DONE, FAILED, GATE_FAILED, HELD, NO_MEMORY, PAUSED, STOPPED
from engine.runs.lock import Lock, LockHeld
from engine.runs.log import EventLog, read_events
from engine.runs.queue import DeviceQueue
from engine.runs.state import RunState
from recipes.load import load_recipe
from recipes.schema import Recipe, Stage

CRASHES = 3
"""Crashes in a row without a newer checkpoint after which a stage has failed."""
WAIT = 0.2


class Supervisor:
    """Works one run from where it stands to its end, a pause, or a failure. Restartable at any moment."""

    def __init__(
        self,
        run: RunDirectory,
        *,
        now: bool = False,
        stage_command: Callable[[RunDirectory, int, Recipe], list[str]] | None = None,
    ) -> None:
        self.run = run
        self.now = now
        self.recipe = load_recipe(str(run.recipe)).recipe
        self.log = EventLog(run.events)
        self.state = RunState().apply_all(read_events(run.events))
        self.attempt = self.state.attempt
        self._command = stage_command or stage_command_of
        self._awake = Awake()
        self._asked = ""
        """The user's last word to this supervisor."""

    # ---- the whole run -------------------------------------------------------------------------------------------

    def work(self) -> int:
        """Returns the run's exit code (engine/runs/exitcodes.py)."""
        for stale in control.receive(self.run.control):
            stale.consume()  # said to an earlier supervisor, which is gone
        if self.log.cut:
            self.tell(
                AlertEvent(level="warning", code="torn-log", text=f"a torn last event of {self.log.cut} bytes was cut")
            )
        queue = DeviceQueue(home(), device_name())
        try:
            ended = self._wait_for_device(queue)
            if ended is None:
                self._awake.start()
                self.tell(RunEvent(state="running"))
                ended = self._phase_zero() or self._stages()
            self._end(ended)
        finally:
            self._awake.stop()
            queue.release()
            self.log.sync()
        return ended.code or 0

    def _wait_for_device(self, queue: DeviceQueue) -> RunEvent | None:
        if self.now:
            return None
        queue.enter(self.run.id)
        told = None
        while not queue.try_take():
            reason = f"waiting for the device ({queue.ahead() + 1} before this run); `--now` starts it beside"
            if reason != told:
                self.tell(RunEvent(state="queued", reason=reason))
                told = reason
            for command in self._commands():
                return self._interrupted(PAUSED if command == "pause" else STOPPED)
            time.sleep(WAIT)
        queue.leave()
        return None

    def _phase_zero(self) -> RunEvent | None:
        """Get the model, in a process of its own; nothing to do when it is on this machine."""
        if self.run.model.is_file():
            return None
        command = [sys.executable, "-P", "-m", "engine.models.fetch", str(self.run.path)]
        result = self._child(command, None, self.run.logs / "00-fetch.log", offline=False)
        if result.code == DONE:
            return None
        return self._verdict(result, "getting the model")

    def _stages(self) -> RunEvent:
        gate_failed = ""
        for index, stage in enumerate(self.recipe.stages):
            if not self._finished(index):
                ended = self._stage(index)
                if ended is not None:
                    return ended
            if self.state.stages[index].passed is False:
                gate_failed = f"stage {index + 1} ({stage.method}): {self.state.stages[index].reason}"
                if self.recipe.on_gate_fail != "warn":
                    return RunEvent(state="done", reason=gate_failed, code=GATE_FAILED)
        return RunEvent(state="done", reason=gate_failed, code=GATE_FAILED if gate_failed else DONE)

    def _finished(self, index: int) -> bool:
        sealed = (self.run.output_folder(index) / "lineage.json").is_file()
        return sealed and self.state.stages[index].status == "done"

    def _end(self, ended: RunEvent) -> None:
        self.tell(ended)
        try:
            write_report(self.run)
        except OSError as error:
            self.tell(AlertEvent(level="warning", code="no-report", text=f"report.md could not be written: {error}"))

    # ---- one stage -----------------------------------------------------------------------------------------------

    def _stage(self, index: int) -> RunEvent | None:
        """Run a stage until it is done. None when it is; else how the run ends."""
        method = self.recipe.stages[index].method
        crashes, checkpoint = 0, self._newest_step(index)
        while True:
            if self._asked:  # of a stage that was just ending, or died before it heard
                return self._interrupted(PAUSED if self._asked == "pause" else STOPPED)
            command = self._command(self.run, index, self.recipe)
            result = self._child(command, index, self.run.log_of(index, method))
            if result.code in (DONE, GATE_FAILED) and self._finished(index):
                return None
            if result.code in (PAUSED, STOPPED, DISK_FULL, BAD_INPUT):
                return self._verdict(result, f"stage {index + 1} ({method})")
            newest = self._newest_step(index)
            if result.code == NO_MEMORY:
                crashes = 0  # it goes on in smaller pieces, each time smaller: no crash, and no endless loop
            else:
                crashes = 1 if newest > checkpoint else crashes + 1
            checkpoint = newest
            if crashes >= CRASHES:
                return self._verdict(result, f"stage {index + 1} ({method})")
            text = f"{result.says}; starting it again from " + (f"step {newest}" if newest else "its beginning")
            self.tell(AlertEvent(stage=index, level="warning", code="retry", text=text))

    def _newest_step(self, index: int) -> int:
        saved = [event.step for event in self.state.stages[index].checkpoints if event.action == "saved"]
        return max(saved, default=0)

    def _child(self, command: list[str], index: int | None, log: Path, offline: bool = True) -> ChildResult:
        """Run a child to its end: its events into the log, our commands to it."""
        self.attempt += 1
        on_mlx = index is not None and (self.recipe.stages[index].backend or self.recipe.backend) == "mlx"
        preload = openblas() if on_mlx else None
        child = Child(command, self.run.path, log, self.attempt, self.recipe.threads, offline, preload)
        said_silent = False
        while child.running():
            for event in child.receive(WAIT):
                self._from_child(event, index)
            for command_word in self._commands():
                child.send({"command": command_word})
            silence = child.silent_for()
            if silence > child.ALERT_AFTER and not said_silent:
                said_silent = True
                text = f"no sign of life for {silence:.0f} s; it is given {child.KILL_AFTER:.0f} s"
                self.tell(AlertEvent(stage=index, level="warning", code="silent", text=text))
        for event in child.rest():
            self._from_child(event, index)
        result = child.result()
        self.tell(
            ExitEvent(
                stage=index,
                process=log.stem,
                pid=result.pid,
                code=result.code,
                signal=result.signal,
                reason=result.says,
            )
        )
        return result

    def _from_child(self, event: Event, index: int | None) -> None:
        event.stage = index
        self.tell(event)
        if isinstance(event, StageEvent | CheckpointEvent):
            self.log.sync()  # what a resume decides by survives a power cut

    def _verdict(self, result: ChildResult, what: str) -> RunEvent:
        if result.code in (PAUSED, STOPPED, DISK_FULL):
            return self._interrupted(result.code)
        stage = self.state.current
        reason = stage.reason if stage is not None and stage.reason else result.says
        if result.code == BAD_INPUT:
            return RunEvent(state="failed", reason=f"{what}: {reason}", code=BAD_INPUT)
        return RunEvent(state="failed", reason=f"{what}: {reason}", code=FAILED)

    def _interrupted(self, code: int) -> RunEvent:
        if code == STOPPED:
            return RunEvent(state="stopped", reason="stopped by the user; `resume` carries on", code=FAILED)
        if code == DISK_FULL:
            texts = [alert.text for alert in self.state.alerts if alert.code == "interrupted"]
            reason = texts[-1] if texts else "the disk is full"
            return RunEvent(state="paused", reason=f"{reason}; make room, then `resume`", code=FAILED)
        return RunEvent(state="paused", reason="paused by the user; `resume` carries on", code=FAILED)

    # ---- events and commands -------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        event.attempt = self.attempt
        self.log.append(event)
        self.state.apply(event)  # type: ignore[arg-type]

    def _commands(self) -> list[str]:
        """Commands that have come in, each acknowledged by an event before its file goes."""
        words = []
        for received in control.receive(self.run.control):
            word = str(received.command.get("command"))
            known = word in control.COMMANDS
            text = (
                f"{word}: will do at the next step" if known else f"unknown command {word!r}; known: {control.COMMANDS}"
            )
            self.tell(AlertEvent(level="info", code="control", text=text, detail={"id": received.id, "command": word}))
            received.consume()
            if known:
                words.append(word)
                self._asked = word
        return words


def stage_command_of(run: RunDirectory, index: int, recipe: Recipe) -> list[str]:
    """The stage's own process, or a launcher around it when the recipe asks for several: ``accelerate launch``, or ours
    on MLX (``engine.runs.ranks``). A stage that trains nothing is one process all the same."""
    stage = ["-m", "engine.stage", str(run.path), str(index)]
    if recipe.processes == 1 or not isinstance(recipe.stages[index], Stage):
        return [sys.executable, "-P", *stage]
    if resolve(recipe.stages[index].backend or recipe.backend) == "mlx":
        return [sys.executable, "-P", "-m", "engine.runs.ranks", str(recipe.processes), *stage]
    launch = [
        sys.executable, "-P", "-m", "accelerate.commands.launch",
        "--num_processes", str(recipe.processes), "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
    ]  # fmt: skip
    # Also on CPUs: `--cpu` alone starts one process, `--multi_gpu` goes through torch's elastic launcher.
    return [*launch, "--multi_gpu", *stage]


def main() -> int:
    # The user's word ends a run (pause, stop), not a closed terminal or a signal to the process group.
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    run = RunDirectory(Path(sys.argv[1]))
    lock = Lock(run.lock)
    try:
        lock.acquire()
    except LockHeld as held:
        print(held, file=sys.stderr)
        return HELD
    try:
        return Supervisor(run, now="--now" in sys.argv).work()
    finally:
        lock.release()


if __name__ == "__main__":
    sys.exit(main())
