"""kill -9 in the middle of a search, at seeded moments: the same trials, the same pick, the same files come out."""

from __future__ import annotations

import json
import os
import random
import signal
import time

import psutil
import pytest

from tests.kill.conftest import Real

pytestmark = [pytest.mark.kill, pytest.mark.timeout(900)]
ABLITERATION = """\
name: short
model: lab-nano
threads: 1
stages:
  - method: abliteration
    confirm_responsible_use: true
    steps: 16
    judge: lab/refusal.yaml
    search_prompts: 12
    kl_tokens: 8
    kl_limit: 0.2
    evaluation: {max_new_tokens: 24, prompts: 8, suite_n: 4, samples: 1}
on_gate_fail: warn
"""
STEERING = """\
name: short
model: lab-nano
threads: 1
stages:
  - method: steering
    personas:
      warm:
        data: {source: lab/contrast.jsonl, heldout: lab/contrast-heldout.jsonl, limit: 60}
        prompt: Be warm.
        opposite: Be formal.
        judge: lab/tone.yaml
      cautious:
        data: {source: lab/caution.jsonl, heldout: lab/caution-heldout.jsonl, limit: 60}
        search: lab/caution-search.jsonl
        prompt: That is against the rules.
        opposite: Yes.
        judge: lab/caution.yaml
        sources: [completions]
    layers: [0.5, 1.0]
    sources: [told]
    windows: [1]
    kl: [0.2]
    condition: true
    compose: 1.5*warm + cautious
    kl_budget: 0.1
    search_prompts: 12
    evaluation: {max_new_tokens: 24, prompts: 8, suite_n: 4, samples: 1}
on_gate_fail: warn
"""
ON_MLX = "backend: mlx\n"
"""Shorter than on PyTorch: what a kill may break there is the bench, not the search."""
CASES = [
    pytest.param("abliteration", ABLITERATION, id="abliteration"),
    pytest.param("steering", STEERING, id="steering"),
    pytest.param("abliteration", ON_MLX + ABLITERATION.replace("steps: 16", "steps: 8"), id="abliteration-mlx"),
    pytest.param("steering", ON_MLX + STEERING.replace("[0.5, 1.0]", "[1.0]"), id="steering-mlx"),
]
JOURNALS = {"abliteration": "study.jsonl", "steering": "candidates.jsonl"}


def kill(real: Real, draw: random.Random, whom: str) -> None:
    """After a random step and a little more: in a trial, between two, or while one is written down."""
    done = real.run.state().stages[0].steps_done
    step = draw.randint(done + 1, min(done + 5, real.run.state().stages[0].steps_total))
    real.wait(lambda state: state.stages[0].steps_done >= step or state.status == "done")
    time.sleep(draw.uniform(0, 0.3))
    holder = real.supervisor()
    victims = [*([psutil.Process(holder.pid)] if holder and whom == "all" else []), *real.stages()]
    for process in victims:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    if whom == "all" and holder:
        real.resume_once_dead()


def outcome(real: Real, method: str) -> dict[str, object]:
    """What must not depend on the kills: what was tried, what was told, what is handed on."""
    folder = real.run.stage_folder(0, method)
    lines = [json.loads(line) for line in (folder / JOURNALS[method]).read_text().splitlines()]
    if method == "abliteration":  # Optuna notes the clock and a worker's name with each record
        lines = [
            {key: value for key, value in line.items() if "datetime" not in key and key != "worker_id"}
            for line in lines
        ]
    series = real.run.state().stages[0].series
    output = folder / "output"
    return {
        "tried": lines,
        "told": {
            name: list(zip(series[name].steps, series[name].values, strict=True))
            for name in series
            if name in ("kl", "reward", "refusal_rate", "strength", "disturbance")
        },
        "gates": {name: gate.value for name, gate in real.run.state().stages[0].gates.items()},
        "files": {path.name: path.read_bytes() for path in output.glob("*.safetensors")},
        "lineage": json.loads((output / "lineage.json").read_text())[
            "edits" if method == "abliteration" else "vectors"
        ],
        "after": (folder / "evaluations" / "after.json").read_bytes(),
    }


@pytest.mark.parametrize("method, recipe", CASES)
def test_a_killed_search_ends_as_the_undisturbed_one(method, recipe, tmp_path):
    if recipe.startswith(ON_MLX):
        pytest.importorskip("mlx_lm")
    whole = Real(tmp_path / "whole", recipe)
    whole.start()
    whole.finish()
    wanted = outcome(whole, method)
    assert len(wanted["told"]["kl"]) == whole.run.state().stages[0].steps_total
    assert wanted["files"] and wanted["lineage"]

    real = Real(tmp_path / "killed", recipe)
    draw = random.Random(5)
    try:
        real.start()
        for whom in ("stage", "all"):
            kill(real, draw, whom)
        real.finish()
        assert real.run.state().attempt > 1
        assert outcome(real, method) == wanted
    finally:
        holder = real.supervisor()
        if holder:
            psutil.Process(holder.pid).kill()
        for process in real.stages():
            process.kill()
