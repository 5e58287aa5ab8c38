"""kill -9 in the middle of a search, at seeded moments: the same trials, the same pick, the same files come out."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.real_run import Real, Warm

pytestmark = [pytest.mark.kill, pytest.mark.timeout(1800)]
RECIPE = """\
name: short
model: lab-nano
threads: 1
stages:
  - method: abliteration
    confirm_responsible_use: true
    steps: 8
    judge: lab/refusal.yaml
    search_prompts: 12
    kl_tokens: 8
    kl_limit: 0.2
    evaluation: {max_new_tokens: 24, prompts: 8, suite_n: 4, samples: 1}
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
        condition: true
    layers: [1.0]
    sources: [told]
    forms: [mean]
    windows: [1, 4]
    kl: [0.2]
    compose: 1.5*warm + cautious
    kl_budget: 0.1
    search_prompts: 12
    evaluation: {max_new_tokens: 24, prompts: 8, suite_n: 4, samples: 1}
on_gate_fail: warn
"""
ON_MLX = "backend: mlx\n" + RECIPE
METHODS = ["abliteration", "steering"]
PATIENCE = 800.0
"""Seconds for a run on a machine that is busy with other tests."""
JOURNALS = {"abliteration": "study.jsonl", "steering": "candidates.jsonl"}


def kill(real: Real, index: int, draw: random.Random, whom: str) -> None:
    """After a random step of a stage and a little more: in a trial, between two, or while one is written down."""
    stage = real.run.state().stages[index]
    total = stage.steps_total
    step = draw.randint(min(stage.steps_done + 1, total), min(stage.steps_done + 3, total))
    real.wait(lambda state: state.stages[index].steps_done >= step or state.status == "done")
    time.sleep(draw.uniform(0, 0.3))
    stages, holder = real.stages(), real.supervisor()
    victims = [*([psutil.Process(holder.pid)] if holder and whom == "all" else []), *stages]
    for process in victims:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    if whom == "all" and holder:
        real.resume_once_dead()


def outcome(real: Real, index: int) -> dict[str, object]:
    """What must not depend on the kills: what was tried, what was told, what is handed on."""
    method, told = METHODS[index], real.run.state().stages[index]
    folder = real.run.stage_folder(index, method)
    lines = [json.loads(line) for line in (folder / JOURNALS[method]).read_text().splitlines()]
    if method == "abliteration":  # Optuna notes the clock and a worker's name with each record
        lines = [
            {key: value for key, value in line.items() if "datetime" not in key and key != "worker_id"}
            for line in lines
        ]
    series = told.series
    output = folder / "output"
    return {
        "tried": lines,
        "told": {
            name: list(zip(series[name].steps, series[name].values, strict=True))
            for name in series
            if name in ("kl", "reward", "refusal_rate", "strength", "disturbance")
        },
        "gates": {name: gate.value for name, gate in told.gates.items()},
        "files": {path.name: path.read_bytes() for path in output.glob("*.safetensors")},
        "lineage": json.loads((output / "lineage.json").read_text())[
            "edits" if method == "abliteration" else "vectors"
        ],
        "after": (folder / "evaluations" / "after.json").read_bytes(),
    }


@pytest.fixture(scope="module", params=["pytorch", pytest.param("mlx", marks=pytest.mark.soak)])
def whole(request, tmp_path_factory):
    """The run that nothing happens to."""
    if request.param == "mlx":
        pytest.importorskip("mlx_lm")
    folder = tmp_path_factory.mktemp("whole")
    undisturbed = (
        Real(folder, ON_MLX)
        if request.param == "mlx"
        else Warm(request.getfixturevalue("warm_process"), folder, RECIPE)
    )
    try:
        undisturbed.start()
        undisturbed.finish(PATIENCE)
        yield undisturbed
    finally:
        undisturbed.end()


def killed_as(real: Real, plan: list[tuple[int, str]], whole: Real, seed: int) -> None:
    """Kill as planned (a stage's index, and whom), and compare with the run that nothing happened to."""
    draw = random.Random(seed)
    try:
        real.start()
        for index, whom in plan:
            kill(real, index, draw, whom)
        real.finish(PATIENCE)
        assert real.run.state().attempt > 1
        for index in range(len(METHODS)):
            wanted = outcome(whole, index)
            assert wanted["files"] and wanted["lineage"] and outcome(real, index) == wanted
    finally:
        real.end()


def again(whole: Real, folder: Path) -> Real:
    home, recipe = folder / "killed", (whole.home / "short.yaml").read_text()
    return Warm(whole.process, home, recipe) if isinstance(whole, Warm) else Real(home, recipe)


def test_a_killed_search_ends_as_the_undisturbed_one(whole, tmp_path):
    killed_as(
        again(whole, tmp_path),
        [(0, "stage"), (0, "all"), (0, "stage"), (1, "all"), (1, "stage"), (1, "stage")],
        whole,
        5,
    )


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(5))
def test_searches_killed_again_and_again(seed, whole, tmp_path):
    plan = [(0, "stage"), (0, "all"), (1, "all"), (1, "stage")]
    killed_as(again(whole, tmp_path), plan, whole, 10 + seed)


def test_the_composition_is_measured_within_its_joint_budget(whole):
    """What a user finds of two vectors that act at once: in the figures, in the report, and in the lineage."""
    stage = whole.run.state().stages[1]
    assert len(stage.series["kl"].steps) == stage.steps_total
    after = {name: found["after"] for name, found in stage.metrics.items() if "after" in found}
    rows = {row["persona"]: row for row in after["composition"].detail["table"]}
    assert set(rows) == {"warm", "cautious"} and after["joint_kl"].detail["budget"] == 0.1
    assert after["joint_kl"].value <= 0.1
    scale = rows["cautious"]["factor"]
    assert 0 < scale < 1 and rows["warm"]["factor"] == pytest.approx(1.5 * scale)
    for name, row in rows.items():
        assert row["composed"] == after[f"share_composed/{name}"].value
        assert row["its vector alone"] == after[f"share/{name}"].value
        assert row["shift over the prompt's"] == after[f"composed_strength/{name}"].value
    assert {"condition_held/cautious", "lowest_cosine", "side_effects_composed_floor"} <= set(after)
    assert "condition_held/warm" not in after and any(alert.code == "scaled" for alert in whole.run.state().alerts)
    lineage = json.loads((whole.run.output_folder(1) / "lineage.json").read_text())
    assert {one["name"]: one["strength"] for one in lineage["vectors"]} == {
        name: row["factor"] for name, row in rows.items()
    }
    report = whole.run.report.read_text()
    assert "Vectors acting together: 1.5*warm + cautious" in report and "Forecast against actual: memory" in report
