"""One tiny real run on lab-nano for all chat tests: training, abliteration and steering, each a few steps."""

from __future__ import annotations

import fcntl
import os
import shutil

import psutil
import pytest

from engine.runs.directory import RunDirectory
from tests.kill.conftest import Real

RECIPE = """\
name: tiny
model: lab-nano
threads: 1
stages:
  - method: sft
    data: {source: lab/domain.jsonl, heldout: lab/domain-heldout.jsonl}
    steps: 4
    batch_size: 4
    max_length: 96
    replay: {share: 0.0}
    evaluation: {max_new_tokens: 4, prompts: 4, suite_n: 2, samples: 1}
  - method: abliteration
    confirm_responsible_use: true
    judge: lab/refusal.yaml
    steps: 2
    search_prompts: 4
    kl_tokens: 4
    kl_limit: 20.0
    evaluation: {max_new_tokens: 4, prompts: 4, suite_n: 2, samples: 1}
  - method: steering
    personas:
      warm:
        data: {source: lab/contrast.jsonl, heldout: lab/contrast-heldout.jsonl, limit: 20}
        prompt: Be warm.
        opposite: Be formal.
        judge: lab/tone.yaml
    layers: [0.5]
    sources: [told]
    forms: [mean]
    kl: [0.3]
    search_prompts: 4
    evaluation: {max_new_tokens: 4, prompts: 4, suite_n: 2, samples: 1}
on_gate_fail: warn
"""


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """Made once, by whichever of pytest's processes comes first; each works on a copy of its own."""
    base, home = tmp_path_factory.getbasetemp(), tmp_path_factory.mktemp("tiny")
    made = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny-made"
    with open(made.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made / "done").exists():
            shutil.rmtree(made, ignore_errors=True)
            first = Real(made, RECIPE)
            first.start()
            first.finish()
            (made / "done").touch()
    shutil.copytree(made, home, dirs_exist_ok=True)
    real = Real(home, RECIPE)
    real.run = RunDirectory(next(path for path in (home / "runs").iterdir() if path.name.startswith("tiny-")))
    return real


@pytest.fixture
def at_home(tiny, monkeypatch):
    """The app of the test finds the tiny run."""
    monkeypatch.setenv("FINETUNE_TUI_HOME", str(tiny.home))
    return tiny


def chat_processes(run):
    """The chat processes of a run, wherever they hang."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "engine.chat" in words and str(run.path) in words and process.status() != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found
