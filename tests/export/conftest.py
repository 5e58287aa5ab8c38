"""One small real run for the whole session: SFT, abliteration and steering on lab-nano, a few steps each."""

from __future__ import annotations

import json
import shutil

import pytest

from engine.export import job
from engine.runs.channel import Channel
from engine.runs.create import create_run
from engine.runs.directory import RunDirectory, runs_folder
from engine.runs.events import RunEvent
from engine.runs.log import EventLog
from engine.stages.execute import run_stage
from recipes.load import load_recipe

RECIPE = """\
name: small
model: lab-nano
threads: 1
stages:
  - method: sft
    data: {source: lab/domain.jsonl, heldout: lab/domain-heldout.jsonl, limit: 24}
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
        data: {source: lab/contrast.jsonl, heldout: lab/contrast-heldout.jsonl, limit: 12}
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


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The run's directory; nobody changes it (``run`` gives each test a copy)."""
    folder = tmp_path_factory.mktemp("export")
    (folder / "small.yaml").write_text(RECIPE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_TUI_HOME", str(folder / "home"))
        run = create_run(load_recipe(str(folder / "small.yaml"))).run
        log = EventLog(run.events)
        for index in range(3):

            def emit(event, index=index):
                event.stage = index
                log.append(event)

            code = run_stage(run, index, Channel(None, emit))
            assert code in (0, 3), code
        log.append(RunEvent(state="done", code=3))
        log.close()
    return run


@pytest.fixture
def run(finished, home):
    """A copy of the run in this test's home, with the answers that exports ask it for."""
    runs_folder().mkdir(parents=True)
    shutil.copytree(finished.path, runs_folder() / finished.id)
    return RunDirectory(runs_folder() / finished.id)


@pytest.fixture
def in_process(monkeypatch, finished):
    """The steps of an export in this process, which has torch loaded already; what the run says is asked once."""
    kept = finished.path / "exports" / ".reference"

    def step(request, log, progress, cancelled=lambda: False):
        from engine.backends.pytorch.export import _step

        return json.loads(json.dumps(_step(json.loads(json.dumps(request)), progress)))

    monkeypatch.setattr(job, "run_step", step)
    return kept
