"""A GPU that another program has nearly filled: a real run goes on with a smaller micro-batch, and the doctor names the other."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from engine.runs.events import AlertEvent, StepEvent
from engine.runs.log import read_events
from tests.real_run import Real

LEFT_MIB = 8192
RECIPE = """\
name: full-gpu
model: {model}
stages:
  - method: sft
    data: {{source: {rows}, heldout_share: 0.2}}
    steps: 6
    batch_size: 16
    max_length: 1024
    replay: {{share: 0.0}}
    checkpoint: {{every: 2}}
    evaluation: {{max_new_tokens: 4, prompts: 4, suite_n: 1, samples: 0}}
on_gate_fail: warn
"""
MODEL = (
    "import sys, pathlib; from tests.gpu.measure import random_model; random_model({name!r}, pathlib.Path(sys.argv[1]))"
)
OTHER = """\
import sys, torch
free, _ = torch.cuda.mem_get_info()
kept = torch.empty(free - {left} * 2**20, dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(cuda):
    """A process that leaves LEFT_MIB of the GPU free."""
    program = [sys.executable, "-c", OTHER.format(left=LEFT_MIB)]
    process = subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.stdin.close()
    process.wait(30)


def test_a_run_beside_another_program_goes_on_with_a_smaller_micro_batch(cuda, tmp_path, other):
    model, rows = tmp_path / "model", tmp_path / "rows.jsonl"
    subprocess.run([sys.executable, "-c", MODEL.format(name="HuggingFaceTB/SmolLM2-135M"), str(model)], check=True)
    with open(rows, "w") as file:
        for number in range(160):
            talk = [
                {"role": "user", "content": f"Hi {number}"},
                {"role": "assistant", "content": "Tarn " * (990 + number % 30)},
            ]
            file.write(json.dumps({"messages": talk}) + "\n")
    real = Real(tmp_path / "home", RECIPE.format(model=model, rows=rows))
    doctor = real.command("doctor")
    assert str(other.pid) in doctor.stdout, doctor.stdout
    real.start()
    real.finish()
    events = read_events(real.run.events)
    told = [event.text for event in events if isinstance(event, AlertEvent) and event.code == "out-of-memory"]
    assert told and all("the effective batch stays 16" in text for text in told)
    assert [event.step for event in events if isinstance(event, StepEvent)] == [1, 2, 3, 4, 5, 6]
