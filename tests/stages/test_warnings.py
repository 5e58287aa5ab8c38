"""A stage that goes wrong says so once, in words with what to do, and again only after it was well in between."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from engine.evaluate.warning_signs import STEPS
from engine.runs.events import AlertEvent
from engine.stages.evaluation import Evaluation


class Bare(Evaluation):
    """An evaluation whose stage is only a gate."""

    def __init__(self, method, kl_limit):
        self.told = []
        gates = {} if kl_limit is None else {"kl": SimpleNamespace(min=None, max=kl_limit)}
        self.stage = SimpleNamespace(gates=gates)
        self.context = SimpleNamespace(method=method, alert=self._alert)
        self._recent, self._seen, self.history = {}, set(), {}

    def _alert(self, level, code, text, **detail):
        self.told.append(AlertEvent(level=level, code=code, text=text, detail=detail))

    def measure(self, when, step):
        return []

    def sample_prompts(self):
        return []


def fed(evaluation, columns):
    for step, values in enumerate(zip(*columns.values(), strict=True), start=1):
        evaluation.remember(step, dict(zip(columns, values, strict=True)))
    return [(alert.code, alert.detail["step"]) for alert in evaluation.told]


def test_equal_rewards_are_told_once_at_their_twentieth_step():
    told = fed(Bare("grpo", None), {"reward": [0.0] * 60, "reward_std": [0.0] * 60, "silent_groups": [1.0] * 60})
    assert told == [("equal-rewards", STEPS)]


def test_a_resume_goes_on_counting_and_says_nothing_twice(tmp_path):
    columns = {"reward": [0.0] * 12, "reward_std": [0.0] * 12}
    before, after = Bare("grpo", None), Bare("grpo", None)
    assert fed(before, columns) == []
    before.save_history(tmp_path)
    after.load_history(tmp_path)
    assert fed(after, columns) == [("equal-rewards", STEPS - 12)]
    after.save_history(tmp_path)
    again = Bare("grpo", None)
    again.load_history(tmp_path)
    assert fed(again, columns) == []


def test_silent_groups_whose_rewards_differ_are_told_as_such():
    rewards = [0.5 + 0.1 * (step % 2) for step in range(30)]
    evaluation = Bare("rlvr", None)
    told = fed(evaluation, {"reward": rewards, "reward_std": [0.0] * 30, "silent_groups": [1.0] * 30})
    assert told == [("silent-groups", STEPS)] and "group_size" in evaluation.told[0].text


def test_a_divergence_over_its_gate_is_told_again_after_it_was_under_it():
    evaluation = Bare("dpo", 0.1)
    told = fed(evaluation, {"kl": [0.2] * 10 + [0.01] * 10 + [0.3] * 10})
    assert told == [("kl-over-target", 5), ("kl-over-target", 25)]
    assert "raise `beta`" in evaluation.told[0].text
    assert fed(Bare("dpo", None), {"kl": [0.2] * 10}) == [], "a gate that is off has no target"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_is_told(bad):
    assert fed(Bare("sft", None), {"loss": [1.0, bad, bad, 1.0]}) == [("loss-not-finite", 2)]
