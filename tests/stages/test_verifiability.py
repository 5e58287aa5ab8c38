"""Before it trains, a stage with rewards says whether its verifier tells right from wrong, with examples."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.stages import rewarded
from engine.verify.interface import Verdict
from recipes.errors import InputError
from recipes.methods import cards


class Exact:
    """Accepts the right answer alone, and of the prompts that it is blind to nothing."""

    name = "exact"

    def __init__(self, blind=(), lenient=False):
        self.blind, self.lenient = blind, lenient

    def verify(self, prompts, completions, answers):
        right = [
            (text == answer or self.lenient) and prompt not in self.blind
            for prompt, text, answer in zip(prompts, completions, answers, strict=True)
        ]
        return [Verdict(float(one), {}) for one in right]


def looked(monkeypatch, verifier):
    """(alerts, measurements) of the check on ten questions."""
    questions = [SimpleNamespace(prompt=[{"role": "user", "content": f"q{i}"}], answer=str(i)) for i in range(10)]
    monkeypatch.setattr(rewarded, "load_questions", lambda context, name: questions)
    alerts, told = [], []
    evaluation = rewarded.RewardEvaluation.__new__(rewarded.RewardEvaluation)
    evaluation.verifier = verifier
    evaluation.context = SimpleNamespace(
        index=0, run=SimpleNamespace(recipe=Path("recipe.yaml")), results=SimpleNamespace(measured=lambda name, what: what()),
        alert=lambda level, code, text: alerts.append((level, code, text)),
    )  # fmt: skip
    evaluation._tell = lambda measured, when, step: told.extend(measured)
    evaluation._check_verifier()
    return alerts, told


def test_a_verifier_that_knows_passes_without_a_word(monkeypatch):
    alerts, told = looked(monkeypatch, Exact())
    assert alerts == [] and told[0].name == "verifiability" and told[0].value == 1.0


def test_one_that_is_blind_to_many_is_told_with_examples_before_training(monkeypatch):
    alerts, told = looked(monkeypatch, Exact(blind=("q1", "q2", "q3")))
    assert told[0].value == pytest.approx(0.7)
    (level, code, text), *more = alerts
    assert (level, code, more) == ("warning", "verifiability", []) and "70% of 10" in text and "`1`" in text


def test_one_that_accepts_anything_is_refused(monkeypatch):
    with pytest.raises(InputError, match="accepts wrong answers in 10 of 10"):
        looked(monkeypatch, Exact(lenient=True))


def test_the_share_is_the_cards():
    assert cards()["grpo"].gates["verifiability"].minimum == rewarded.LEAST_VERIFIABILITY
