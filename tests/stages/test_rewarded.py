"""A verifier that accepts anything teaches nothing: the run is refused with examples. A user's own file works."""

from __future__ import annotations

import json

import pytest

from engine.runs.lock import held
from tests.kill.conftest import Real
from tests.sandboxed import needs_sandbox

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


HOSTILE = """\
import ctypes, os, socket, sys

def verify(prompt, completion, answer):
    if completion.strip().rstrip('.') == answer:
        return 1.0
    kind = sum(map(ord, prompt + completion)) % 6
    if kind == 0:
        sys.exit(0)
    if kind == 1:
        ctypes.string_at(0)
    if kind == 2:
        bytearray(4 << 30)
    if kind == 3:
        print('{"output": 1.0}' * 100_000, flush=True)
        os._exit(0)
    if kind == 4:
        while True:
            pass
    socket.create_connection(("192.0.2.1", 80), timeout=1)
    return 1.0
"""


STEPS = """\
name: short
model: lab-nano
backend: BACKEND
threads: 1
stages:
  - method: rlvr
    data: {source: mine.jsonl, heldout_share: 0.25}
    steps: 6
    batch_size: 8
    group_size: 4
    max_length: 96
    max_new_tokens: 4
    verifier: {kind: custom-steps, path: mine.py}
    evaluation: {max_new_tokens: 4, prompts: 4, suite_n: 2, samples: 1}
    checkpoint: {every: 2}
on_gate_fail: warn
"""
VERIFIER = """\
import re

def steps(prompt, completion, answer):
    '''Each text between semicolons is a step, and right unless it is an equation that does not hold.'''
    found = []
    for part in re.finditer("[^;]+", completion):
        equation = re.fullmatch(r"\\s*(\\d+) - (\\d+) = (\\d+)", part[0])
        wrong = equation and int(equation[1]) - int(equation[2]) != int(equation[3])
        if not part[0].strip().startswith("answer"):
            found.append({"end": part.end(), "accepted": ALWAYS or not wrong})
    return {"answer": float(completion.rstrip(".").split()[-1:] == [answer]), "steps": found}
"""


def steps_files(home, always):
    rows = [
        {"prompt": f"From {n} take 3, 2 and 1.", "answer": str(n - 6),
         "steps": [f"{n} - 3 = {n - 3}", f"{n - 3} - 2 = {n - 5}", f"{n - 5} - 1 = {n - 6}"], "required": 8}
        for n in range(10, 34)
    ]  # fmt: skip
    (home / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (home / "mine.py").write_text(VERIFIER.replace("ALWAYS", str(always)))


@needs_sandbox
@pytest.mark.timeout(300)
def test_what_ends_hangs_or_floods_scores_0_and_training_goes_on(tmp_path):
    real = Real(tmp_path / "home", RECIPE.replace("path: mine.py", "path: mine.py, seconds: 2"))
    (tmp_path / "home" / "mine.py").write_text(HOSTILE)
    run = real.start()
    real.finish()
    stage = run.state().stages[0]
    assert stage.status == "done" and stage.steps_done == 2
    assert stage.metrics["verifiability"]["before"].value == 1.0
    assert list(stage.series["reward"].values) == [0.0, 0.0]


@needs_sandbox
@pytest.mark.timeout(300)
def test_a_verifier_that_accepts_every_step_is_refused_with_examples(tmp_path):
    real = Real(tmp_path / "home", STEPS.replace("BACKEND", "pytorch"))
    steps_files(real.home, always=True)
    done = real.command("run", str(real.home / "short.yaml"), "--headless")
    said = done.stdout + done.stderr
    assert done.returncode == 2
    assert "accepts a wrong step in 18 of 18 worked solutions, such as" in said and "stages.0.verifier" in said


@needs_sandbox
@pytest.mark.timeout(300)
@pytest.mark.parametrize("backend", ["pytorch", "mlx"])
def test_the_rows_say_how_many_steps_are_needed_through_training_and_a_kill(backend, tmp_path):
    """Of eight steps the few tokens have three at the most: that many at once are no full score."""
    if backend == "mlx":
        pytest.importorskip("mlx_lm")
    real = Real(tmp_path / "home", STEPS.replace("BACKEND", backend))
    steps_files(real.home, always=False)
    try:
        run = real.start()
        real.wait(lambda state: state.stages[0].series.get("reward_steps"), 200)
        real.end()
        (real.home / "mine.jsonl").write_text("")
        real.wait(lambda state: not real.stages() and not held(real.run.lock), 20)
        if real.status() == "interrupted":
            done = real.command("resume", run.id, "--detach", "--accept-changed-data")
            assert done.returncode == 0, done.stderr
        real.finish()
    finally:
        real.end()
    stage = run.state().stages[0]
    assert stage.series["reward_steps"].steps[-1] == 6
    assert 0 < max(stage.series["reward_steps"].values) <= 3 / 8
    assert all(stage.metrics["step_correctness"][when].value <= 3 / 8 for when in ("before", "after"))
    said = [alert.text for alert in run.state().alerts if "worked solution" in alert.text]
    assert len(said) == 1 and "the worked solution scores 0.38 of 1" in said[0]
