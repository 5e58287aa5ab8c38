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
from engine.stages.memory import ran_out, smaller

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


def test_the_recovered_run_learns_what_the_smaller_micro_batch_would_have(tmp_path):
    done, recovered, where = run(tmp_path, batch_size=8, accumulation=1, most_rows=2)
    assert done.returncode in (0, 3), done.stderr
    assert ["micro-batch of 8" in text for text in told(recovered)] == [True, False]
    assert "2, and 4 of them accumulated" in told(recovered)[1] and "effective batch stays 8" in told(recovered)[1]
    kept = json.loads((where.stage_folder(0, "sft") / "micro-batch.json").read_text())
    assert kept == {"batch_size": 2, "accumulation": 4}
    _, undisturbed, _ = run(tmp_path, batch_size=2, accumulation=4)
    assert told(undisturbed) == []
    assert losses(recovered) == losses(undisturbed) and len(losses(recovered)) == 4
    # The next run of the same stage here does not run into it again, and says why.
    _, again, _ = run(tmp_path, batch_size=8, accumulation=1, most_rows=2)
    assert told(again) == [] and losses(again) == losses(undisturbed)
    said = [event.text for event in again if isinstance(event, AlertEvent) and event.code == "smaller-micro-batch"]
    assert len(said) == 1 and "micro-batch of 8: beginning with 2, and 4" in said[0]


def test_memory_that_runs_out_later_costs_the_steps_since_the_checkpoint(tmp_path):
    done, recovered, _ = run(tmp_path, batch_size=8, accumulation=1, most_rows=4, from_step=3)
    assert done.returncode in (0, 3), done.stderr
    restored = [event.step for event in recovered if isinstance(event, CheckpointEvent) and event.action == "restored"]
    assert restored[0] == 2 and len(told(recovered)) == 1
    _, undisturbed, _ = run(tmp_path, batch_size=8, accumulation=1)
    # The same rows in other pieces: equal but for the rounding of sums.
    assert losses(recovered) == pytest.approx(losses(undisturbed), rel=1e-3)


def test_a_micro_batch_of_one_has_nowhere_to_go(tmp_path):
    done, events, _ = run(tmp_path, batch_size=1, accumulation=2, most_rows=0)
    assert done.returncode == 1
    assert "micro-batch of 1" in told(events)[-1]


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
