"""Verifiability: honest verifiers pass, ones that accept anything are found, with examples."""

from __future__ import annotations

import json

import pytest

from assets.lab import __file__ as lab
from engine.verify.check import perturb, verifiability
from engine.verify.code import read_tests
from engine.verify.plain import Exact, Number, Regex
from engine.verify.registry import open_verifier
from engine.verify.sandbox import jails
from engine.verify.steps import Steps


def chains(n=60):
    from pathlib import Path

    lines = (Path(lab).parent / "data" / "chains.jsonl").read_text().splitlines()[:n]
    rows = [json.loads(line) for line in lines]
    return [row["prompt"] for row in rows], [row["answer"] for row in rows]


@pytest.mark.parametrize("made", [Number, Steps, Exact])
def test_honest_verifiers_pass_on_the_lab(made):
    found = verifiability(made(), *chains())
    assert found.share == 1.0 and found.n == 60 and found.failures == ()


def test_a_verifier_that_accepts_wrong_answers_gets_nothing(tmp_path):
    if jails.find_jail()[0] is None:
        pytest.skip(jails.find_jail()[1])
    (tmp_path / "kind.py").write_text("def verify(prompt, completion, answer):\n    return 1.0\n")
    verifier = open_verifier({"kind": "python", "path": "kind.py"}, tmp_path)
    found = verifiability(verifier, *chains(20))
    verifier.close()
    assert found.share == 0.0 and found.accepts_wrong == 20
    assert len(found.failures) == 3 and "wrong answer is accepted" in found.failures[0].why
    assert found.failures[0].prompt in chains(20)[0]


def test_a_verifier_that_finds_no_answer_gets_nothing():
    verifier = Number(pattern=r"RESULT (\d+)", seconds=5)
    found = verifiability(verifier, *chains(20))
    assert found.share == 0.0 and found.rejects_right == 20
    assert verifiability(verifier, *chains(20), template="RESULT {answer}!").share == 1.0
    verifier.close()


def test_a_form_must_be_more_than_anything():
    for pattern, share in ((r"<b>\d+</b>", 1.0), (r".*", 0.0)):
        verifier = Regex(pattern, seconds=5)
        assert verifiability(verifier, *chains(20), template="<b>{answer}</b>").share == share
        verifier.close()


def test_code_is_tried_by_heart_and_by_changed_outputs(tmp_path):
    if jails.find_jail()[0] is None:
        pytest.skip(jails.find_jail()[1])
    values = [7, 1.5, True, "a", [1, 2], [], {"a": 1}, None]
    answers = [json.dumps({"tests": [{"input": [i], "output": v}], "entry": "f"}) for i, v in enumerate(values)]
    answers.append(json.dumps({"tests": [{"input": "3\n", "output": "9\n"}, {"input": "4\n", "output": "16\n"}]}))
    verifier = open_verifier({"kind": "code"}, tmp_path)
    found = verifiability(verifier, [""] * len(answers), answers)
    verifier.close()
    assert found.share == 1.0, found


def test_perturbed_answers_differ_and_are_the_same_each_time():
    answers = ["9", "3/4", "-1", "Tarn", "Bree", "x + 12", json.dumps({"answer": "9", "required": 2})]
    answers.append(json.dumps({"tests": [{"input": [1], "output": 1}], "entry": "f"}))
    assert perturb(answers) == perturb(answers)
    for right, wrong in zip(answers, perturb(answers), strict=True):
        assert right != wrong
    assert perturb(["Tarn", "Bree"]) == ["Bree", "Tarn"]
    assert json.loads(perturb(answers)[6])["required"] == 2 and not isinstance(read_tests(perturb(answers)[7]), str)
