"""Before a run is made its verifiers are tried on its own answers, and what teaches nothing or the wrong thing is refused."""

from __future__ import annotations

import json

import pytest

from engine.data.prepare import prepare
from engine.data.verifiable import Verifiable, judge_verifiable, kept
from engine.verify.check import ACCEPTED_WRONG, WANTED, perturb, verifiability
from engine.verify.interface import Verdict
from recipes.errors import InputError
from recipes.load import load_recipe
from recipes.methods import cards
from tests.sandboxed import needs_sandbox

RECIPE = """\
name: short
model: lab-nano
stages:
  - method: grpo
    data: {source: rows.jsonl, heldout_share: 0.1}
    steps: 2
    batch_size: 8
    group_size: 4
    verifier: %s
"""


def prepared(folder, answers, verifier="{kind: number}", more=""):
    """(warnings, what was found) of the recipe's first stage on these answers."""
    rows = [json.dumps({"prompt": f"what is {n}", "answer": answer}) for n, answer in enumerate(answers)]
    (folder / "rows.jsonl").write_text("\n".join(rows))
    (folder / "r.yaml").write_text(RECIPE % verifier + more)
    found = prepare(load_recipe(str(folder / "r.yaml")), 0, folder / "into")
    return [one for one in found.warnings if "rows" not in one], kept(folder / "into")


def test_a_verifier_that_knows_passes_without_a_word(tmp_path):
    warnings, found = prepared(tmp_path, map(str, range(50)))
    assert warnings == [] and (found.share, found.n, found.accepts_wrong) == (1.0, 45, 0)


MANY = [str(n) if n % 3 else "a lot" for n in range(48)]


def test_one_that_is_blind_to_many_is_refused_where_its_gate_would_stop_the_run_at_the_end(tmp_path):
    with pytest.raises(
        InputError,
        match=r"stages.0.verifier.*`number` can tell 70% of 43.*gate wants 80%.*`a lot`.*`on_gate_fail: warn`",
    ) as refused:
        prepared(tmp_path, MANY)
    assert str(refused.value).count("`a lot`") == 1
    for more in ("on_gate_fail: warn\n", "    gates: {verifiability: null}\n"):
        (warning,), found = prepared(tmp_path, MANY, more=more)
        assert "are verifiable by `number` (n 43; more than 80% is wanted), such as `a lot`" in warning
        assert found.share == pytest.approx(2 / 3, abs=0.05)


@needs_sandbox
def test_one_that_accepts_anything_is_refused_whatever_the_gates_are(tmp_path):
    (tmp_path / "mine.py").write_text("def verify(prompt, completion, answer):\n    return 0.95\n")
    with pytest.raises(InputError, match="stages.0.verifier.*takes 45 of 45 wrong ones for right, such as"):
        prepared(tmp_path, map(str, range(50)), "{kind: python, path: mine.py}", "on_gate_fail: warn\n")
    assert kept(tmp_path / "into").accepts_wrong == 45


class Lenient:
    """Rewards each answer with ``reward(is it right)``."""

    name = "lenient"

    def __init__(self, reward):
        self.reward = reward

    def verify(self, prompts, completions, answers):
        return [Verdict(self.reward(text == answer)) for text, answer in zip(completions, answers, strict=True)]


@pytest.mark.parametrize(
    "reward, share, wrong",
    [
        (lambda right: float(right), 1.0, 0),
        (lambda right: 1.0 if right else 0.3, 1.0, 0),  # a part of the reward for the form
        (lambda right: 1.0 if right else 0.995, 0.0, 20),
        (lambda right: 0.95, 0.0, 20),  # what is rewarded like the right one is accepted
        (lambda right: 0.0, 0.0, 0),
        (lambda right: 0.5 * right, 0.0, 0),
    ],
)
def test_what_counts_as_accepted(reward, share, wrong):
    answers = [f"word {n}" for n in range(20)]
    found = verifiability(Lenient(reward), [""] * 20, answers, template="{answer}")
    assert (found.share, found.accepts_wrong) == (share, wrong)


def test_the_limits_of_the_run_and_of_the_look_at_the_data_are_one():
    few = Verifiable("regex", 0.97, 100, 3, 0, [("q", "no", "a wrong answer is accepted")])
    assert judge_verifiable(few, "r.yaml") == (
        [], ["`regex` takes 3 of 100 wrong answers for right, such as `no` (a wrong answer is accepted)"],
    )  # fmt: skip
    over = Verifiable("regex", 0.9, 100, round(100 * ACCEPTED_WRONG) + 1, 0, [])
    assert judge_verifiable(over, "r.yaml", "stages.1.verifier")[0][0].field == "stages.1.verifier"
    assert cards()["grpo"].gates["verifiability"].minimum == WANTED


def test_a_large_number_is_moved_further_than_a_tolerance_of_one_per_cent():
    assert perturb(["7"] * 9, seed=1) != ["7"] * 9 and all(
        abs(int(one) - 7) <= 10 for one in perturb(["7"] * 9, seed=1)
    )
    assert all(abs(int(one) - 100_000) >= 2000 for one in perturb(["100000"] * 50, seed=1))
