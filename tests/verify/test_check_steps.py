"""Before it teaches, a verifier of steps is tried on worked steps: the right ones, and one with another result."""

from __future__ import annotations

import json
import random
import re

import pytest

from engine.data.formats import Question
from engine.data.worked import with_steps
from engine.verify.check_steps import changed_step, judge_steps, try_steps, unknown_number, write_out
from engine.verify.interface import StepVerdict, Verdict
from engine.verify.references import joined, reference
from engine.verify.registry import open_verifier
from engine.verify.steps import Steps, right_answer
from recipes.resources import assets_folder
from tests.sandboxed import needs_sandbox


def chains(n=40):
    lines = (assets_folder() / "lab" / "data" / "chains.jsonl").read_text().splitlines()[:n]
    rows = [json.loads(line) for line in lines]
    asked = [Question([{"role": "user", "content": row["prompt"]}], row["answer"]) for row in rows]
    answers = [with_steps(one, row, "", 1).answer for one, row in zip(asked, rows, strict=True)]
    return [row["prompt"] for row in rows], answers


def apples(n=20):
    """Free problems: the steps in words, with an equation in most."""
    prompts, answers = [], []
    for i in range(n):
        left = 40 + i - 7
        steps = [
            f"She keeps {40 + i} - 7 = {left} apples.",
            "Then she doubles them.",
            f"That makes {left} * 2 = {left * 2}.",
        ]
        prompts.append(f"Anna has {40 + i} apples, gives away 7 and doubles the rest. How many has she?")
        answers.append(joined(str(left * 2), 2, steps))
    return prompts, answers


class Custom:
    """Judges what stands between semicolons or lines by ``accepts``; strict with the answer."""

    name = "custom-steps"

    def __init__(self, accepts, whole=False, needed=None):
        self.accepts, self.whole, self.needed = accepts, whole, needed

    def verify(self, prompts, completions, answers):
        pairs = zip(completions, answers, strict=True)
        return [Verdict(float(right_answer(text, reference(answer).answer))) for text, answer in pairs]

    def steps(self, prompts, completions, answers):
        if self.whole:
            return [[StepVerdict(len(text), self.accepts(text))] for text in completions]
        return [
            [
                StepVerdict(one.end(), self.accepts(one[0]))
                for one in re.finditer(r"[^;\n]+", text)
                if not re.match(r"\s*(?:the )?answer|####", one[0], re.IGNORECASE)
            ]
            for text in completions
        ]

    def required(self, prompt, answer):
        return reference(answer).required or self.needed

    def close(self):
        pass


def holds(step):
    equation = re.fullmatch(r"\s*(\d+) ([-+*]) (\d+) = (\d+)", step)
    return bool(equation) and eval("".join(equation.groups()[:3])) == int(equation[4])


def checked(verifier, prompts, answers):
    """(what was found, what it is refused for, warnings)"""
    found = try_steps(verifier, prompts, answers)
    refused, warnings = judge_steps(verifier, found)
    return found, refused, warnings + unknown_number(verifier, prompts, answers)


@pytest.mark.parametrize("rows", [chains, apples])
def test_the_built_in_verifier_passes(rows):
    found, refused, warnings = checked(Steps(), *rows())
    assert (found.good, found.accepts_wrong, found.rejects_right, found.short) == (found.n, 0, 0, 0) and found.n
    assert refused == "" and warnings == []


@pytest.mark.parametrize("split", ["auto", "lines", "sentences", "numbered", "semicolons"])
def test_it_passes_however_it_splits(split):
    found = try_steps(Steps(split=split), *chains(16))
    assert found.good == found.n == 16


def test_algebra_passes():
    steps = ["2x = 7 - 3", "2x = 4", "x = 2"]
    verifier = Steps(algebra=True, seconds=6)
    try:
        found = try_steps(verifier, ["Solve 2x + 3 = 7."] * 3, [joined("2", 3, steps)] * 3)
    finally:
        verifier.close()
    assert found.good == found.n == 3, found


@pytest.mark.parametrize("whole", [False, True])
def test_one_that_accepts_every_step_is_refused_with_examples(whole):
    _, refused, _ = checked(Custom(lambda step: True, whole), *chains())
    assert "accepts a wrong step in 40 of 40 worked solutions, such as" in refused
    assert "a wrong step is accepted; right:" in refused


def test_one_that_accepts_one_wrong_step_in_five_is_refused_and_one_that_knows_passes():
    found, refused, warnings = checked(Custom(holds), *chains())
    assert (found.good, refused, warnings) == (40, "", [])
    draw = random.Random(3)
    _, refused, _ = checked(Custom(lambda step: holds(step) or draw.random() < 0.2), *chains())
    assert "accepts a wrong step in" in refused


def test_one_that_knows_no_step_is_told():
    found, _, said = checked(Custom(lambda step: False), *chains())
    assert found.rejects_right == 40 and not found.refused
    assert len(said) == 1 and "in 0 of 40 worked solutions" in said[0] and "a worked step is not accepted" in said[0]


def test_worked_steps_that_do_not_make_the_score_are_told():
    prompts, answers = apples()
    answers = [answer.replace('"required": 2', '"required": 4') for answer in answers]
    found, _, said = checked(Steps(), prompts, answers)
    assert found.short == found.n and "the worked solution scores 0.50 of 1" in said[0]


def test_rows_without_worked_steps_are_told_for_verifiers_that_are_not_ours():
    plain = [reference(answer).answer for answer in apples()[1]]
    found, _, said = checked(Steps(), apples()[0], plain)
    assert found.n == 0 and said == []
    said = checked(Custom(holds), apples()[0], plain)[2]
    assert len(said) == 2 and "could not be tried" in said[0] and "one true step alone" in said[1]
    said = checked(Custom(holds, needed=2), apples()[0], plain)[2]
    assert len(said) == 1 and "could not be tried" in said[0]


@pytest.mark.parametrize(
    "step",
    [
        "12 - 3 = 9",
        "12 - 3 = 9 apples (day 2)",
        "<<12-3=9>>9",
        "x = 0.5",
        "9 apples are left",
        "all men are mortal",
        "ok",
    ],
)
def test_a_changed_step_is_another_one_and_the_same_each_time(step):
    changed = changed_step(step, random.Random(1))
    assert changed != step and changed == changed_step(step, random.Random(1))
    if "=" in step:
        assert changed.partition("=")[0] == step.partition("=")[0]


def test_places_are_where_the_steps_stand():
    found = write_out(["12 - 3 = 9.", "9 * 2 = 18"], "18", ("Step {n}: {step}", "\n", "Answer: {answer}"))
    assert found.text == "Step 1: 12 - 3 = 9\nStep 2: 9 * 2 = 18\nAnswer: 18"
    assert [found.text[start:end] for start, end in found.places] == ["12 - 3 = 9\nStep 2: ", "9 * 2 = 18\n"]


CUSTOM = """
def steps(prompt, completion, answer):
    found, at = [], 0
    for part in completion.split(";"):
        if "answer" not in part and part.strip():
            found.append({"end": at + len(part), "accepted": ACCEPTED})
        at += len(part) + 1
    return {"answer": float(completion.rstrip(".").split()[-1:] == [answer]), "steps": found}
"""


@needs_sandbox
def test_a_file_of_ones_own_is_tried_and_sees_the_row_s_own_answer(tmp_path):
    prompts, answers = chains(12)
    for accepted, refused in (("True", True), ("eval(part.partition('=')[0]) == int(part.partition('=')[2])", False)):
        (tmp_path / "mine.py").write_text(CUSTOM.replace("ACCEPTED", accepted))
        verifier = open_verifier({"kind": "custom-steps", "path": "mine.py"}, tmp_path)
        try:
            assert try_steps(verifier, prompts, answers).refused is refused
            own = reference(answers[0]).answer
            (verdict,) = verifier.verify(prompts[:1], [f"1 + 1 = 2; answer {own}."], answers[:1])
            assert verdict.reward == 1.0 and verdict.components["steps"] == pytest.approx(1 / 3)
            assert verifier.required(prompts[0], answers[0]) == 3
        finally:
            verifier.close()
