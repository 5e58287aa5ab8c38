"""GRPO and RLVR in two processes, each of which holds its own part of a generation: killed, the same bits come out."""

from __future__ import annotations

import pytest

from engine.runs.directory import RunDirectory
from engine.runs.events import CheckpointEvent
from engine.runs.log import read_events
from tests.real_run import Warm

pytestmark = [pytest.mark.kill, pytest.mark.timeout(600)]

RECIPE = """\
name: short
model: lab-nano
threads: 1
processes: 2
stages:
  - method: {method}
    data: {{source: lab/chains.jsonl, limit: 11, heldout_share: 0.25}}
    steps: {steps}
    batch_size: 4
    group_size: 4
    steps_per_generation: 2
    num_iterations: {iterations}
    max_new_tokens: 12
    max_length: 96
    learning_rate: 0.01
    verifier: {verifier}
    evaluation: {{max_new_tokens: 8, prompts: 2, suite_n: 2, samples: 1}}
    checkpoint: {{every: {every}}}
on_gate_fail: warn
"""
"""Four prompts are answered at once, eight are an epoch: one of 4 steps, or of 8 where each generation is trained on twice."""
PARTLY = """
      kind: sum
      components:
        - verifier: {kind: number}
        - verifier: {kind: regex, pattern: "[^1]*"}
"""
"""Half of the reward is easily had: any answer without a 1 in it."""
GRPO = {"method": "grpo", "verifier": PARTLY}
RLVR = {"method": "rlvr", "verifier": "{kind: steps, split: semicolons}"}


def restored(run: RunDirectory) -> list[int]:
    found = [event for event in read_events(run.events) if isinstance(event, CheckpointEvent)]
    return [event.step for event in found if event.action == "restored"]


@pytest.mark.parametrize(
    "method, steps, iterations, every, dies, expected",
    [
        # In the second epoch, in the middle of a generation, with another one before that epoch ends.
        (GRPO, 8, 1, 5, (6,), [5]),
        pytest.param(GRPO, 14, 2, 3, (4, 7, 11, 13), [3, 6, 9, 12], marks=pytest.mark.soak),
        pytest.param(RLVR, 14, 2, 3, (4, 7, 11, 13), [3, 6, 9, 12], marks=pytest.mark.soak),
    ],
)
def test_each_rank_takes_back_its_own_completions(
    method, steps, iterations, every, dies, expected, warm_process, tmp_path
):
    recipe = RECIPE.format(**method, steps=steps, iterations=iterations, every=every)
    whole = Warm(warm_process, tmp_path / "whole", recipe)
    killed = Warm(warm_process, tmp_path / "killed", recipe, hook="tests.kill.last_rank:dies_after")
    killed.environment["DIE_AFTER"] = " ".join(map(str, dies))
    try:
        whole.start()
        whole.finish()
        killed.start()
        killed.finish()
        assert restored(whole.run) == [] and restored(killed.run) == expected
        assert any(whole.result()["losses"][0].values()), "nothing was rewarded, so nothing is compared"
        assert killed.result() == whole.result()
    finally:
        whole.end()
        killed.end()
