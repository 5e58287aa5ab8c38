"""A judge whose pattern never ends costs its completions the verdict, not the run: every kind of stage that has a judge
says so once and goes on to its gates."""

from __future__ import annotations

import psutil

from engine.verify import patterns
from recipes.resources import assets_folder
from tests.in_process import run_here

RECIPE = """\
name: endless
model: lab-nano
threads: 1
stages:
  - method: dpo
    data: {source: lab/preferences.jsonl, limit: 24, heldout_share: 0.25}
    steps: 2
    batch_size: 4
    max_length: 64
    adapter: {rank: 4, alpha: 8}
    judge: tone.yaml
    evaluation: {max_new_tokens: 64, prompts: 2, suite_n: 1, samples: 0}
  - method: abliteration
    confirm_responsible_use: true
    steps: 1
    judge: refusal.yaml
    harmful: {search: search.jsonl, test: test.jsonl}
    search_prompts: 2
    kl_tokens: 4
    kl_limit: 50.0
    evaluation: {max_new_tokens: 64, prompts: 2, suite_n: 1, samples: 0}
  - method: steering
    personas:
      warm:
        data: {source: lab/contrast.jsonl, limit: 12, heldout_share: 0.5}
        prompt: Be warm.
        opposite: Be formal.
        judge: tone.yaml
    layers: [1.0]
    sources: [told]
    forms: [mean]
    windows: [1]
    kl: [0.3]
    search_prompts: 2
    evaluation: {max_new_tokens: 64, prompts: 2, suite_n: 1, samples: 0}
on_gate_fail: warn
"""
NEVER = "'(.+ ?)+#'"


def test_every_stage_with_a_judge_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNE_TUI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(patterns, "SECONDS", 0.1)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "tone.yaml").write_text(f"preferred: {NEVER}\nrejected: x\n")
    (tmp_path / "refusal.yaml").write_text(f"comply: {NEVER}\nrefuse: x\n")
    for part in ("search", "test"):
        with open(assets_folder() / "lab" / "data" / f"forbidden-{part}.jsonl") as file:
            (tmp_path / f"{part}.jsonl").write_text(file.readline() + file.readline())
    before = set(psutil.Process().children(recursive=True))
    run = run_here(tmp_path / "recipe.yaml")
    state = run.state()
    told = [alert for alert in state.alerts if alert.code == "endless-pattern"]
    assert [(alert.stage, alert.level) for alert in told] == [(0, "warning"), (1, "warning"), (2, "warning")]
    assert ["`preferred`" in told[0].text, "`comply`" in told[1].text, "`preferred`" in told[2].text] == [True] * 3
    assert state.stages[0].metrics["broken_share"]["after"].value == 1.0
    assert state.stages[1].gates["refusal_rate"].value == 1.0
    assert state.stages[2].metrics["share/warm"]["after"].value == 0.0
    assert all(stage.gates for stage in state.stages)
    _, left = psutil.wait_procs(set(psutil.Process().children(recursive=True)) - before, timeout=60)
    assert not left, "the judges' processes end with their stages"
