"""Runs whose stages are fake (tests/runs/fake_stage.py) but whose processes, signals and files are real."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.runs.create import create_run
from engine.runs.directory import status
from recipes.load import load_recipe

FAKE = Path(__file__).with_name("fake_stage.py")
RECIPE = """\
name: fake
model: lab-nano
threads: 1
{extra}
stages:
  - method: sft
    data: {{source: rows.jsonl}}
    steps: {steps}
    replay: {{share: 0.0}}
  - method: dpo
    data: {{source: pairs.jsonl}}
    steps: {steps}
"""


def wait_for(condition, seconds=30.0, what="it"):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{what} did not happen within {seconds} s")


class FakeRun:
    def __init__(self, run):
        self.run = run
        self.processes = []

    def plan(self, **plan):
        (self.run.path / "fake.json").write_text(json.dumps(plan))
        return self

    def supervise(self, *flags, wait=False):
        log = open(self.run.path / "supervisor.out", "ab")
        process = subprocess.Popen(
            [sys.executable, str(FAKE), "supervise", str(self.run.path), *flags],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        log.close()
        self.processes.append(process)
        return process.wait(60) if wait else process

    def state(self):
        return self.run.state()

    def status(self):
        return status(self.run, self.state())

    def go(self):
        """Let a stage go on that was planned to hold after a step."""
        (self.run.path / "go").touch()

    def wait_step(self, step, stage=0):
        wait_for(lambda: self.state().stages[stage].steps_done >= step, what=f"step {step}")

    def stage_pid(self):
        pids = sorted(self.run.path.glob("stage-*.pid"), key=lambda path: int(path.stem.split("-")[1]))
        return int(pids[-1].read_text())

    def sums(self):
        return [
            json.loads((self.run.output_folder(index) / "sum.json").read_text())
            for index in range(2)
            if (self.run.output_folder(index) / "sum.json").exists()
        ]

    def end(self):
        for process in self.processes:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture
def fake_run(tmp_path):
    made = []

    def make(steps=12, extra="", **plan):
        (tmp_path / "rows.jsonl").write_text(
            "".join(json.dumps({"prompt": f"q{i}", "completion": "a"}) + "\n" for i in range(50))
        )
        pairs = [{"prompt": f"q{i}", "chosen": "a", "rejected": "b"} for i in range(50)]
        (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
        (tmp_path / "fake.yaml").write_text(RECIPE.format(steps=steps, extra=extra))
        made.append(FakeRun(create_run(load_recipe(str(tmp_path / "fake.yaml"))).run).plan(**plan))
        return made[-1]

    yield make
    for run in made:
        run.end()


@pytest.fixture
def until():
    return wait_for
