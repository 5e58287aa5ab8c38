"""A verifier that accepts anything teaches nothing: the run is refused with examples. A user's own file works."""

from __future__ import annotations

import pytest

from engine.verify.sandbox.jails import find_jail
from tests.kill.conftest import Real

RECIPE = """\
name: short
model: lab-nano
threads: 1
stages:
  - method: grpo
    data: {source: lab/chains.jsonl, limit: 16, heldout_share: 0.25}
    steps: 2
    batch_size: 8
    group_size: 4
    max_length: 96
    max_new_tokens: 12
    verifier: {kind: python, path: mine.py}
    evaluation: {max_new_tokens: 12, prompts: 4, suite_n: 2, samples: 1}
on_gate_fail: warn
"""
needs_sandbox = pytest.mark.skipif(find_jail()[0] is None, reason=f"no sandbox: {find_jail()[1]}")


@needs_sandbox
@pytest.mark.timeout(300)
def test_a_verifier_that_accepts_anything_is_refused_with_examples(tmp_path):
    real = Real(tmp_path / "home", RECIPE)
    (tmp_path / "home" / "mine.py").write_text("def verify(prompt, completion, answer):\n    return 1.0\n")
    done = real.command("run", str(tmp_path / "home" / "short.yaml"), "--headless")
    assert done.returncode == 2 and not list((tmp_path / "home" / "runs").glob("*"))
    said = done.stdout + done.stderr
    assert "wrong ones for right" in said and "such as" in said and "stages.0.verifier" in said


@needs_sandbox
@pytest.mark.timeout(300)
def test_a_users_own_verifier_is_kept_in_the_run_and_rewards(tmp_path):
    real = Real(tmp_path / "home", RECIPE)
    mine = tmp_path / "home" / "mine.py"
    mine.write_text(
        "def verify(prompt, completion, answer):\n"
        "    right = float(completion.rstrip('. ').split()[-1:] == [answer])\n"
        "    return {'reward': right, 'right': right, 'long': min(1.0, len(completion) / 100)}\n"
    )
    run = real.start()
    mine.unlink()  # the run has its own copy
    real.finish()
    stage = run.state().stages[0]
    assert set(stage.series) >= {"reward", "reward_right", "reward_long", "advantage_variance", "silent_groups"}
    assert stage.metrics["verifiability"]["before"].value == 1.0
    assert any(sample.label == "training" and "reward" in sample.values for sample in stage.samples)
