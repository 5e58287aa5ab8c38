"""Every other training method, one after the other in one run on lab-nano, killed in each: the same bits come out."""

from __future__ import annotations

import pytest

from tests.kill.test_kill import torture
from tests.real_run import Real

COMMON = """
    batch_size: 8
    max_length: 96
    learning_rate: 0.001
    checkpoint: {every: 2}
"""
PAIRS = "data: {source: lab/preferences.jsonl, limit: 80, heldout_share: 0.2}"
CHAINS = "data: {source: lab/chains.jsonl, limit: 16, heldout_share: 0.25}"
QUESTIONS = "data: {source: lab/questions.jsonl, limit: 80, heldout_share: 0.3}"
LOOK = "evaluation: {max_new_tokens: 12, prompts: 8, suite_n: 4, samples: 1}"
EVERY_METHOD = f"""\
name: every-method
model: lab-nano
threads: 1
stages:
  - method: orpo
    {PAIRS}
    steps: 8
    {LOOK}{COMMON}
  - method: cpo
    {PAIRS}
    steps: 10
    judge: lab/tone.yaml
    anchors: {{share: 0.25, source: lab/general-heldout.jsonl}}
    trust_region: {{every: 3, kl: 0.0005, prompts: 8, suite_n: 2}}   # so narrow that it steps back
    {LOOK}{COMMON}
  - method: grpo
    {CHAINS}
    steps: 10
    group_size: 4
    num_iterations: 2
    steps_per_generation: 2
    max_new_tokens: 12
    {LOOK}{COMMON}
  - method: rlvr
    {CHAINS}
    steps: 8
    group_size: 4
    max_new_tokens: 16
    verifier: {{kind: steps, split: semicolons}}
    {LOOK}{COMMON}
  - method: anti_hallucination
    {QUESTIONS}
    steps: 8
    samples: 1
    padding_free: true
    replay: {{share: 0.3, source: lab/general-heldout.jsonl}}
    {LOOK}{COMMON}
  - method: calibration
    {QUESTIONS}
    {LOOK}
on_gate_fail: warn
"""
METHODS = 6


@pytest.fixture(scope="module")
def every_method(tmp_path_factory):
    """The run that nothing happens to."""
    real = Real(tmp_path_factory.mktemp("every-method"), EVERY_METHOD)
    real.run_here()
    return real


@pytest.fixture
def killed(warm):
    (warm.home / "short.yaml").write_text(EVERY_METHOD)
    return warm


def told(real: Real) -> list[dict[str, float]]:
    """Every metric of every stage at its end."""
    return [
        {name: found["after"].value for name, found in stage.metrics.items() if "after" in found}
        for stage in real.run.state().stages
    ]


@pytest.mark.kill
@pytest.mark.timeout(900)
def test_every_method_survives_being_killed(killed, every_method):
    torture(killed, seed=3, kills=3, stages=METHODS)
    assert killed.result() == every_method.result()
    assert told(killed) == told(every_method)
    assert any(alert.code == "step-back" for alert in every_method.run.state().alerts)


@pytest.mark.soak
@pytest.mark.kill
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [21, 22])
def test_every_method_survives_many_kills(seed, killed, every_method):
    torture(killed, seed=seed, kills=10, stages=METHODS)
    assert killed.result() == every_method.result()
    assert told(killed) == told(every_method)
