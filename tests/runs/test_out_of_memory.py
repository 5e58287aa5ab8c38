"""A stage that runs out of memory goes on with a smaller micro-batch: a real run, with the error put into its trainer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from engine.runs.directory import list_runs
from engine.runs.events import AlertEvent, CheckpointEvent, StepEvent
from engine.runs.log import read_events
from engine.stages.memory import fall_back, ran_out, smaller
from recipes.load import load_recipe
from tests.in_process import run_here

RECIPE = """\
name: tight
model: lab-nano
threads: 1
stages:
  - method: sft
    data: {{source: lab/domain.jsonl, heldout: lab/domain-heldout.jsonl, limit: 64}}
    steps: 4
    batch_size: {batch_size}
    accumulation: {accumulation}
    max_length: 96
    replay: {{share: 0.0}}
    checkpoint: {{every: 2}}
    evaluation: {{max_new_tokens: 4, prompts: 4, suite_n: 1, samples: 0}}
on_gate_fail: warn
"""
INJECTED = """
import builtins, os, sys
real = builtins.__import__
def importing(name, *args, **kwargs):
    module = real(name, *args, **kwargs)
    training = sys.modules.get("engine.backends.pytorch.training")
    trainer = getattr(training, "LinkedTrainer", None)
    if trainer is not None and not hasattr(trainer, "injected"):
        trainer.injected = True
        step = trainer.training_step
        def training_step(self, model, inputs, *rest, **named):
            import torch
            rows = inputs["input_ids"].shape[0]
            if rows > int(os.environ["MOST_ROWS"]) and self.state.global_step >= int(os.environ["FROM_STEP"]):
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return step(self, model, inputs, *rest, **named)
        trainer.training_step = training_step
    return module
builtins.__import__ = importing
"""


def run(tmp_path, batch_size, accumulation, most_rows=10_000, from_step=0):
    """The exit code and events of a run whose trainer cannot take more than so many rows."""
    home = tmp_path / f"home-{batch_size}-{most_rows}-{from_step}"
    home.mkdir(exist_ok=True)
    (home / "sitecustomize.py").write_text(INJECTED)
    (home / "tight.yaml").write_text(RECIPE.format(batch_size=batch_size, accumulation=accumulation))
    environment = {
        **os.environ, "FINETUNE_TUI_HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(home),
        "MOST_ROWS": str(most_rows), "FROM_STEP": str(from_step),
    }  # fmt: skip
    command = [sys.executable, "-P", "-m", "tui.cli", "run", str(home / "tight.yaml"), "--headless"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    before, os.environ["FINETUNE_TUI_HOME"] = os.environ["FINETUNE_TUI_HOME"], str(home)
    try:
        return done, read_events(list_runs()[-1].events), list_runs()[-1]
    finally:
        os.environ["FINETUNE_TUI_HOME"] = before


def losses(events):
    return {event.step: event.values["loss"] for event in events if isinstance(event, StepEvent)}


def told(events):
    return [event.text for event in events if isinstance(event, AlertEvent) and event.code == "out-of-memory"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The losses of the run that was started with the smaller micro-batch."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "tight.yaml").write_text(RECIPE.format(batch_size=4, accumulation=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_TUI_HOME", str(folder))
        events = read_events(run_here(folder / "tight.yaml").events)
    assert told(events) == [] and len(losses(events)) == 4
    return losses(events)


def test_the_recovered_run_learns_what_the_smaller_micro_batch_would_have(tmp_path, undisturbed):
    done, recovered, where = run(tmp_path, batch_size=8, accumulation=1, most_rows=4)
    assert done.returncode in (0, 3), done.stderr
    (text,) = told(recovered)
    assert "micro-batch of 8" in text and "4, and 2 of them accumulated" in text and "effective batch stays 8" in text
    kept = json.loads((where.stage_folder(0, "sft") / "micro-batch.json").read_text())
    assert kept == {"batch_size": 4, "accumulation": 2}
    assert losses(recovered) == undisturbed
    # The next run of the same stage here does not run into it again, and says why.
    _, again, _ = run(tmp_path, batch_size=8, accumulation=1, most_rows=4)
    assert told(again) == [] and losses(again) == undisturbed
    said = [event.text for event in again if isinstance(event, AlertEvent) and event.code == "smaller-micro-batch"]
    assert len(said) == 1 and "micro-batch of 8: beginning with 4, and 2" in said[0]


def test_memory_that_runs_out_later_costs_the_steps_since_the_checkpoint(tmp_path, undisturbed):
    done, recovered, _ = run(tmp_path, batch_size=8, accumulation=1, most_rows=4, from_step=3)
    assert done.returncode in (0, 3), done.stderr
    restored = [event.step for event in recovered if isinstance(event, CheckpointEvent) and event.action == "restored"]
    assert restored[0] == 2 and len(told(recovered)) == 1
    # The same rows in other pieces: equal but for the rounding of sums.
    assert losses(recovered) == pytest.approx(undisturbed, rel=1e-3)


def test_a_micro_batch_is_halved_as_long_as_it_can_be(tmp_path, home):
    """What an error leaves for the stage's next start, and what it says where nothing smaller is left."""
    recipe = load_recipe(str(resolved(tmp_path, batch_size=4))).recipe
    said = []
    context = SimpleNamespace(
        stage=recipe.stages[0], folder=tmp_path / "stage", recipe=recipe, index=0,
        alert=lambda level, code, text, **detail: said.append((level, code, text)),
    )  # fmt: skip
    for left in ({"batch_size": 2, "accumulation": 2}, {"batch_size": 1, "accumulation": 4}):
        assert fall_back(context) and json.loads((tmp_path / "stage" / "micro-batch.json").read_text()) == left
        context.stage = context.stage.model_copy(update=left)
    assert not fall_back(context)
    assert [level for level, *_ in said] == ["warning", "warning", "error"] and "micro-batch of 1" in said[-1][2]


def resolved(folder, batch_size):
    path = folder / "tight.yaml"
    path.write_text(RECIPE.format(batch_size=batch_size, accumulation=1))
    return path


@pytest.mark.parametrize("batch,accumulation,expected", [(8, 1, (4, 2)), (6, 2, (3, 4)), (3, 1, (1, 3)), (1, 4, None)])
def test_the_effective_batch_stays(batch, accumulation, expected):
    found = smaller(SimpleNamespace(batch_size=batch, accumulation=accumulation))
    assert (found and (found["batch_size"], found["accumulation"])) == expected


def test_an_out_of_memory_is_known_by_its_words_and_its_cause():
    assert ran_out(RuntimeError("CUDA out of memory. Tried to allocate"))
    assert ran_out(RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"))
    try:
        try:
            raise MemoryError
        except MemoryError as error:
            raise ValueError("a wrapper") from error
    except ValueError as wrapped:
        assert ran_out(wrapped)
    assert not ran_out(RuntimeError("shapes do not match"))
    assert not ran_out(ValueError("out of memory"))
