"""on_gate_fail: rollback, for real: a stage whose gate fails hands on the last step whose gates passed, else what it got."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from engine.models.lineage import read_lineage
from tests.in_process import run_here

SFT = """\
  - method: sft
    data: {source: lab/domain.jsonl, limit: 40, heldout_share: 0.2}
    steps: 6
    batch_size: 4
    learning_rate: 0.004
    schedule: constant_with_warmup
    max_length: 64
    adapter: {rank: 4, alpha: 8}
    replay: {share: 0.0}
    evaluation: {max_new_tokens: 8, prompts: 8, suite_n: 1, samples: 0, every: 2}
    checkpoint: {every: 1, keep: 2}
    gates: {heldout_loss: null, accuracy_gain: null, retention: null, kl: {max: %s}}
"""
CALIBRATION = """\
  - method: calibration
    data: {source: lab/questions.jsonl, limit: %d, heldout_share: 0.5}
    by: one
    evaluation: {max_new_tokens: 4}
    gates: {brier_change: null, ece_cut: %s}
"""


def ran(folder, policy, *stages):
    folder.mkdir(parents=True)
    recipe = f"name: back\nmodel: lab-nano\nthreads: 1\nstages:\n{''.join(stages)}on_gate_fail: {policy}\n"
    (folder / "back.yaml").write_text(recipe)
    return run_here(folder / "back.yaml")


def weights(folder):
    return load_file(folder / "adapter_model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def lineage_of(run, index):
    return read_lineage(run.output_folder(index) / "lineage.json")


def kls(run):
    """The divergence of the first stage at every evaluation."""
    files = (run.stage_folder(0, "sft") / "evaluations").glob("*.json")
    found = {path.stem: json.loads(path.read_text()) for path in files}
    return {name: one["value"] for name, rows in found.items() for one in rows if one["name"] == "kl"}


@pytest.mark.timeout(300)
def test_back_to_the_last_step_whose_gates_passed_or_to_what_was_given(tmp_path):
    """Stage 1 passes at step 2 and fails at 4 and 6: step 2. Stage 2 never passes: what stage 1 gave. Stage 3 fits a
    confidence and passes; stage 4 fits another, fails, and hands on that of stage 3."""
    run = ran(
        tmp_path / "back",
        "rollback",
        SFT % 0.015,
        SFT % 0,
        CALIBRATION % (40, "null"),
        CALIBRATION % (30, "{min: 2.0}"),
    )
    far = kls(run)
    assert far["step-000002"] < 0.015 < min(far["step-000004"], far["after"])  # else this test says nothing
    checkpoints = run.stage_folder(0, "sft") / "checkpoints"
    assert {path.name for path in checkpoints.glob("step-*")} == {"step-000002", "step-000005", "step-000006"}
    given = weights(run.output_folder(0) / "adapter")
    assert same(given, weights(checkpoints / "step-000002")) and not same(given, weights(checkpoints / "step-000006"))

    lineages = [lineage_of(run, index) for index in range(4)]
    assert lineages[1] == lineages[0] and not (run.output_folder(1) / "adapter").exists()
    assert lineages[2].adapter == lineages[0].adapter and lineages[0].confidence is None
    assert lineages[2].confidence and lineages[3] == lineages[2]

    stages = run.state().stages
    assert [stage.passed for stage in stages] == [False, False, True, False]
    said = [alert.text for alert in run.state().alerts if alert.code == "rollback"]
    assert said == [
        "a gate failed: back to step 2, the last whose gates passed",
        "a gate failed: the stage hands on what it was given, unchanged",
    ]


@pytest.mark.timeout(300)
def test_without_a_rollback_the_last_step_is_handed_on(tmp_path):
    run = ran(tmp_path / "stop", "stop", SFT % 0.015, CALIBRATION % (40, "{min: 2.0}"))
    checkpoints = run.stage_folder(0, "sft") / "checkpoints"
    assert same(weights(run.output_folder(0) / "adapter"), weights(checkpoints / "step-000006"))
    assert lineage_of(run, 1).confidence and not any(alert.code == "rollback" for alert in run.state().alerts)
