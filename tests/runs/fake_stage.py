"""A stage without a model: counts steps, saves checkpoints, and misbehaves as ``fake.json`` in the run says.

``python fake_stage.py RUN INDEX`` is the stage; ``python fake_stage.py supervise RUN [--now]`` a real supervisor whose
stages are these.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from engine.models.lineage import lineage_in, write_lineage
from engine.runs.channel import Channel
from engine.runs.checkpoints import CheckpointStore, DiskFull
from engine.runs.directory import RunDirectory
from engine.runs.events import AlertEvent, CheckpointEvent, StageEvent, StepEvent
from engine.runs.exitcodes import BAD_INPUT, DISK_FULL, DONE, GATE_FAILED, PAUSED, STOPPED
from engine.runs.supervisor import Supervisor
from recipes.load import load_recipe


def stage(run: RunDirectory, index: int) -> int:
    channel = Channel.from_stdin()
    plan = json.loads((run.path / "fake.json").read_text())
    attempt = int(os.environ["FINETUNE_TUI_ATTEMPT"])
    recipe = load_recipe(str(run.recipe)).recipe.stages[index]
    folder = run.stage_folder(index, recipe.method)
    channel.emit(StageEvent(state="started", method=recipe.method, steps_total=recipe.steps))
    store = CheckpointStore(folder / "checkpoints", keep=2)
    newest = store.newest_valid(lambda path, why: channel.emit(AlertEvent(level="warning", code="bad", text=why)))
    step, total = 0, 0
    if newest:
        step, total = newest.step, json.loads((newest.path / "sum.json").read_text())
        channel.emit(CheckpointEvent(action="restored", step=step, path=newest.path.name))
    (run.path / f"stage-{attempt}.pid").write_text(str(os.getpid()))
    print(f"attempt {attempt} from step {step}")
    while step < recipe.steps:
        step += 1
        total += step * step
        channel.emit(StepEvent(step=step, total=recipe.steps, values={"loss": 1.0 / step, "sum": float(total)}))
        time.sleep(plan.get("seconds", 0.0))
        crash = plan.get("crash", {}).get(str(attempt), plan.get("crash", {}).get("every"))
        if crash == step:
            print("ValueError: the fake stage crashes here")
            sys.stdout.flush()
            os._exit(9)
        if plan.get("kill", {}).get(str(attempt)) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        if plan.get("bad_input") == step:
            channel.emit(StageEvent(state="failed", method=recipe.method, reason="row 3 is bad"))
            return BAD_INPUT
        command = None if plan.get("deaf") else channel.pending()
        while step == plan.get("hold") and not command and not (run.path / "go").exists():
            time.sleep(0.01)
            command = channel.pending()
        if step % 5 == 0 or step == recipe.steps or command:
            try:
                staging = store.staging(step)
            except DiskFull as full:
                channel.emit(AlertEvent(level="info", code="interrupted", text=f"the disk is full: {full}"))
                return DISK_FULL
            (staging / "c").mkdir()
            (staging / "c" / "sum.json").write_text(json.dumps(total))
            sealed = store.seal(staging / "c", step, {})
            channel.emit(CheckpointEvent(action="saved", step=step, path=sealed.name))
            store.prune()
        if command:
            return STOPPED if command["command"] == "stop" else PAUSED
    draft = folder / "draft"
    draft.mkdir(exist_ok=True)
    (draft / "sum.json").write_text(json.dumps(total))
    write_lineage(draft / "lineage.json", lineage_in(run, index))
    draft.rename(folder / "output")
    passed = plan.get("passes", True)
    channel.emit(
        StageEvent(state="done", method=recipe.method, passed=passed, reason="" if passed else "gate failed: kl")
    )
    channel.close()
    return DONE if passed else GATE_FAILED


def main() -> int:
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    if sys.argv[1] != "supervise":
        code = stage(RunDirectory(Path(sys.argv[1])), int(sys.argv[2]))
        sys.stdout.flush()
        os._exit(code)
    from engine.runs.lock import Lock

    run = RunDirectory(Path(sys.argv[2]))
    lock = Lock(run.lock)
    lock.acquire()

    def command(run: RunDirectory, index: int, recipe: object) -> list[str]:
        return [sys.executable, __file__, str(run.path), str(index)]

    return Supervisor(run, now="--now" in sys.argv, stage_command=command).work()


if __name__ == "__main__":
    sys.exit(main())
