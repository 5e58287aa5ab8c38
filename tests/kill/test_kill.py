"""kill -9 of the stage, the supervisor, the watching command or all, at seeded random moments: the same bits come out."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time

import psutil
import pytest

from engine.runs.lock import held
from tests.real_run import COMMAND, Real

VICTIMS = ["stage", "supervisor", "watcher", "all"]


def reach(real: Real, condition) -> None:
    """Wait for it. Three kills of a stage at one checkpoint are taken for a stage that keeps crashing, and the run for
    failed: a resume carries on."""
    while True:
        real.wait(lambda state: condition(state) or state.status == "failed")
        if condition(real.run.state()):
            return
        real.wait(lambda state: not held(real.run.lock), 20)
        real.resume()


def kill_all(real: Real) -> None:
    """The supervisor and the stage, at once."""
    stages, holder = real.stages(), real.supervisor()
    for pid in [*([holder.pid] if holder else []), *(process.pid for process in stages)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def kill_once(real: Real, draw: random.Random, stage: int, victim: str) -> None:
    """Kill at a random moment within the stage (or a little after a random step of it), then carry on."""
    watcher = None
    if victim in ("watcher", "all"):
        watcher = subprocess.Popen([*COMMAND, "attach", real.run.id], env=real.environment, stdout=subprocess.DEVNULL)
    before = real.run.state().stages[stage].steps_done
    total = real.run.state().stages[stage].steps_total
    step = draw.randint(min(before + 1, total), total)
    reach(real, lambda state: state.stages[stage].steps_done >= step or state.status == "done")
    time.sleep(draw.uniform(0, 0.25))  # in a step, in an evaluation, in the middle of a save
    stages, holder = real.stages(), real.supervisor()
    victims = {
        "stage": stages,
        "supervisor": [psutil.Process(holder.pid)] if holder else [],
        "watcher": [psutil.Process(watcher.pid)] if watcher else [],
    }
    victims["all"] = [*victims["watcher"], *victims["supervisor"], *victims["stage"]]
    for process in victims[victim]:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    if watcher is not None:
        watcher.kill()
        watcher.wait()
    if victim in ("supervisor", "all") and holder:
        real.resume_once_dead()


def torture(real: Real, seed: int, kills: int, stages: int = 2) -> None:
    """``kills`` kills in each stage and one at the boundary after the first."""
    draw = random.Random(seed)
    real.start()
    for stage in range(stages):
        for number in range(kills):
            kill_once(real, draw, stage, VICTIMS[(number + stage) % 4] if kills < 5 else draw.choice(VICTIMS))
        if stage == 0:
            reach(real, lambda state: state.stages[0].status == "done" or (real.run.output_folder(0)).is_dir())
            kill_all(real)
            real.wait(lambda state: real.status() == "interrupted")
            real.resume()
    reach(real, lambda state: state.status == "done")
    real.finish()


@pytest.mark.kill
@pytest.mark.timeout(900)
def test_killed_runs_end_in_the_same_bits(warm, uninterrupted):
    torture(warm, seed=1, kills=3)
    assert warm.result() == uninterrupted.result()
    assert warm.run.state().attempt > uninterrupted.run.state().attempt


@pytest.mark.soak
@pytest.mark.kill
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed, started", [(11, "real"), (12, "warm")])
def test_twenty_kills_of_each_method_end_in_the_same_bits(seed, started, request, uninterrupted):
    run = request.getfixturevalue(started)
    torture(run, seed=seed, kills=10)
    assert run.result() == uninterrupted.result()
