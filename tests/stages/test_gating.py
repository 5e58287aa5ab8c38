"""A gate that nothing measured fails, with the reason; what cannot be measured and is no fault is excused."""

from __future__ import annotations

import math

import yaml

from engine.runs.exitcodes import DONE, GATE_FAILED
from tests.in_process import run_here

LOOK = {"max_new_tokens": 4, "prompts": 4, "suite_n": 2, "samples": 0}
SFT = {
    "method": "sft", "data": {"source": "lab/domain.jsonl", "limit": 16, "heldout_share": 0.25}, "steps": 1, "batch_size": 4,
    "training": "full", "evaluation": LOOK,
}  # fmt: skip
DPO = {
    "method": "dpo", "data": {"source": "lab/preferences.jsonl", "limit": 16, "heldout_share": 0.25}, "steps": 1, "batch_size": 4,
    "evaluation": LOOK,
}  # fmt: skip


def ended(tmp_path, stage, gates, **more):
    """(state, its one stage) of a short run in which only these gates are on."""
    from recipes.methods import cards

    every = dict.fromkeys(cards()[stage["method"]].gates)
    path = tmp_path / "short.yaml"
    raw = {"name": "short", "model": "lab-nano", "threads": 1, "stages": [stage | {"gates": every | gates}], **more}
    path.write_text(yaml.safe_dump(raw))
    state = run_here(path).state()
    return state, state.stages[0]


def test_a_gate_that_nothing_measured_fails_and_says_why(home, tmp_path):
    state, stage = ended(tmp_path, SFT, {"kl": {"max": 0.1}}, on_gate_fail="warn")
    assert state.code == GATE_FAILED and stage.passed is False
    gate = stage.gates["kl"]
    assert not gate.passed and gate.n == 0 and math.isnan(float(gate.value)) and "full fine-tuning" in gate.detail
    (alert,) = [one for one in state.alerts if one.code == "not-gated"]
    assert "`kl` failed, for nothing measured it" in alert.text and "`gates: {kl: null}`" in alert.text


def test_without_a_judge_the_preferred_share_is_excused(home, tmp_path):
    state, stage = ended(tmp_path, DPO, {"preferred_share_gain": {"min": 0.0}, "kl": {"max": 100.0}})
    assert state.code == DONE and set(stage.gates) == {"kl"}


def test_a_retention_that_no_task_can_show_is_told_before_training(home, tmp_path):
    (tmp_path / "suite.jsonl").write_text('{"task": "odd", "prompt": "Say it.", "answer": "what nobody says"}\n' * 2)
    gates, more = {"retention": {"min": 0.5}}, {"suite": "suite.jsonl", "on_gate_fail": "warn"}
    state, stage = ended(tmp_path, SFT | {"training": "lora"}, gates, **more)
    told = [one.code for one in state.alerts]
    assert state.code == GATE_FAILED and "no-figure" in told and "50% of no task" in stage.gates["retention"].detail
