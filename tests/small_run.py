"""One small real run for all tests of exports and chats: SFT, abliteration and steering on lab-nano, a few steps each.

It is made once, by the first of the test processes that needs it, and copied by the others.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

import pytest

from engine.runs.directory import RunDirectory
from tests.in_process import run_here

RECIPE = """\
name: small
model: lab-nano
threads: 1
stages:
  - method: sft
    data: {source: lab/domain.jsonl, limit: 32, heldout_share: 0.25}
    steps: 3
    batch_size: 8
    learning_rate: 0.004
    max_length: 64
    adapter: {rank: 4, alpha: 8}
    replay: {share: 0.0}
    evaluation: {max_new_tokens: 8, prompts: 4, suite_n: 2, samples: 2}
  - method: abliteration
    confirm_responsible_use: true
    steps: 1
    judge: lab/refusal.yaml
    search_prompts: 4
    kl_tokens: 4
    kl_limit: 5.0
    evaluation: {max_new_tokens: 8, prompts: 4, suite_n: 2, samples: 1}
  - method: steering
    personas:
      warm:
        data: {source: lab/contrast.jsonl, limit: 24, heldout_share: 0.5}
        prompt: Be warm.
        opposite: Be formal.
        judge: lab/tone.yaml
    layers: [1.0]
    sources: [told]
    forms: [mean]
    kl: [0.3]
    compose: 1.0*warm
    search_prompts: 4
    evaluation: {max_new_tokens: 8, prompts: 4, suite_n: 2, samples: 1}
on_gate_fail: warn
"""


def small_run(factory: pytest.TempPathFactory) -> RunDirectory:
    """The finished run, in a home of its own; nobody changes it: ``copied`` gives a copy."""
    shared = factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    folder = shared / "small-run"
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = folder / "made"
        if not made.is_file():
            shutil.rmtree(folder / "home", ignore_errors=True)  # half made by one that failed
            made.write_text(str(_make(folder).path))
    return RunDirectory(Path(made.read_text()))


def copied(run: RunDirectory, home: Path) -> RunDirectory:
    """A copy of the run in another home."""
    to = home / "runs" / run.id
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(run.path, to)
    return RunDirectory(to)


def _make(folder: Path) -> RunDirectory:
    (folder / "small.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_TUI_HOME", str(folder / "home"))
        return run_here(folder / "small.yaml")
