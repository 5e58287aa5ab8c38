"""Real runs on lab-nano in a home of their own: by commands as a user's (``Real``), or started at once (``Warm``)."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from engine.runs.create import create_run
from engine.runs.directory import RunDirectory, status
from engine.runs.identity import Identity
from engine.runs.launch import ensure_resumable
from engine.runs.lock import held, read_holder
from recipes.load import load_recipe
from tests.in_process import run_here
from tests.warm import WarmProcess

RECIPE = """\
name: short
model: lab-nano
threads: 1
stages:
  - method: sft
    data: {source: lab/domain.jsonl, limit: 160, heldout_share: 0.2}
    steps: 16
    batch_size: 4
    max_length: 96
    learning_rate: 0.002
    replay: {share: 0.3}
    evaluation: {max_new_tokens: 8, prompts: 8, suite_n: 4, samples: 1, every: 8}
    checkpoint: {every: 2}
  - method: dpo
    data: {source: lab/preferences.jsonl, limit: 120, heldout_share: 0.2}
    steps: 12
    batch_size: 4
    max_length: 96
    learning_rate: 0.001
    judge: lab/tone.yaml
    evaluation: {max_new_tokens: 16, prompts: 8, suite_n: 4, samples: 1}
    checkpoint: {every: 2}
on_gate_fail: warn
"""
COMMAND = [sys.executable, "-P", "-m", "tui.cli"]


class Real:
    """A run under a home folder, driven by commands as a user would."""

    def __init__(self, home: Path, recipe: str = RECIPE) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        (home / "short.yaml").write_text(recipe)
        self.environment = {**os.environ, "FINETUNE_TUI_HOME": str(home), "OMP_NUM_THREADS": "1"}
        self.run: RunDirectory | None = None

    def command(self, *words: str, **options) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words], env=self.environment, capture_output=True, text=True, timeout=300, **options
        )

    def start(self, *words: str) -> RunDirectory:
        done = self.command("run", str(self.home / "short.yaml"), "--detach", "--json", *words)
        assert done.returncode == 0, done.stderr
        self.run = RunDirectory(Path(json.loads(done.stdout)["path"]))
        return self.run

    def run_here(self) -> None:
        """What comes out where nothing happens."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FINETUNE_TUI_HOME", str(self.home))
            self.run = run_here(self.home / "short.yaml")

    def resume(self) -> None:
        done = self.command("resume", self.run.id, "--detach")
        assert done.returncode == 0, done.stderr

    def resume_once_dead(self) -> None:
        """After the supervisor was killed: wait until it and its stages are gone (a kill takes a moment), then carry on."""
        self.wait(lambda state: not self.stages(), 20)  # an orphaned stage ends by itself
        self.wait(lambda state: not held(self.run.lock), 20)
        if self.status() == "interrupted":
            self.resume()

    def status(self) -> str:
        return status(self.run, self.run.state())

    def wait(self, condition, seconds: float = 600.0):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            begun = time.monotonic()
            found = condition(self.run.state())
            if found:
                return found
            time.sleep(max(0.01, 3 * (time.monotonic() - begun)))  # looking is not to take the run's time
        raise AssertionError(f"waited {seconds} s; the run is {self.status()}: {self.logs()}")

    def finish(self, seconds: float = 240.0) -> None:
        self.wait(lambda state: self.status() in ("done", "failed", "paused", "stopped", "interrupted"), seconds)
        assert self.status() == "done", self.logs()

    def logs(self) -> str:
        return "".join(path.read_text(errors="replace")[-1500:] for path in sorted(self.run.logs.glob("*.log")))

    def supervisor(self) -> Identity | None:
        holder = read_holder(self.run.lock)
        return holder if holder and holder.alive() else None

    def stages(self) -> list[psutil.Process]:
        """The stage processes of this run, wherever they hang."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "engine.stage" in words and str(self.run.path) in words:
                found.append(process)
        return found

    def end(self) -> None:
        """Nothing of a run that did not come to its end is left behind."""
        if self.run is None:
            return
        stages, holder = self.stages(), self.supervisor()
        for process in [*([psutil.Process(holder.pid)] if holder else []), *stages]:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue

    def result(self) -> dict[str, object]:
        """What must be the same to the bit: the adapters handed on, and every step's loss."""
        state = self.run.state()
        return {
            "adapters": [
                hashlib.sha256(
                    (self.run.output_folder(index) / "adapter" / "adapter_model.safetensors").read_bytes()
                ).hexdigest()
                for index in range(len(state.stages))
                if (self.run.output_folder(index) / "adapter").is_dir()
            ],
            "losses": [
                dict(zip(stage.series["loss"].steps, stage.series["loss"].values, strict=True))
                for stage in state.stages
                if "loss" in stage.series
            ],
        }


class Warm(Real):
    """The same run, its supervisors and stages forked from a process that has imported what they need (tests/warm.py)."""

    def __init__(self, process: WarmProcess, home: Path, recipe: str = RECIPE, hook: str = "") -> None:
        super().__init__(home, recipe)
        self.process, self.hook = process, hook
        self._stages: dict[int, psutil.Process] = {}

    def start(self, *words: str) -> RunDirectory:
        assert not words
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FINETUNE_TUI_HOME", str(self.home))
            self.run = create_run(load_recipe(str(self.home / "short.yaml"))).run
        self._supervise()
        return self.run

    def resume(self) -> None:
        ensure_resumable(self.run)
        self._supervise()

    def stages(self) -> list[psutil.Process]:
        """Children of the supervisor, and those seen earlier that have outlived theirs."""
        holder = self.supervisor()
        try:
            children = psutil.Process(holder.pid).children() if holder else []
        except psutil.NoSuchProcess:
            children = []
        self._stages |= {process.pid: process for process in children}
        return [process for process in self._stages.values() if lives(process)]

    def _supervise(self) -> None:
        before = self.run.events.stat().st_size
        pid = self.process.supervise(self.run.path, self.environment, self.hook)
        self.wait(lambda state: self.run.events.stat().st_size > before or not psutil.pid_exists(pid), 60)


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
