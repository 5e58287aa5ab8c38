"""Steps: what counts, what is idle, and that padding loses."""

from __future__ import annotations

import json
import random
from fractions import Fraction

import pytest

from assets.lab.make.world import chain_reply, draw_chain, taught_reply
from engine.verify import equations
from engine.verify.references import Reference, joined, own_answer, reference
from engine.verify.steps import Steps, final_answer, right_answer, step_score

PROMPT = "Start with 12. Subtract 3. Double it. Subtract 6."
RIGHT = "12 - 3 = 9; 9 * 2 = 18; 18 - 6 = 12; answer 12."


@pytest.fixture
def verifier():
    made = Steps()
    yield made
    made.close()


def flags(verifier, completion, prompt=PROMPT, answer="12"):
    """A letter for each step: R accepted and required, i accepted and idle, x not accepted."""
    found = verifier.steps([prompt], [completion], [answer])[0]
    return "".join("R" if step.required and step.accepted else "i" if step.accepted else "x" for step in found)


def score(verifier, completion, prompt=PROMPT, answer="12"):
    return verifier.verify([prompt], [completion], [answer])[0].components["steps"]


def test_the_lab_s_chains_are_fully_accepted(verifier):
    draw = random.Random(0)
    for _ in range(300):
        chain = draw_chain(draw)
        reply = chain_reply(chain.steps, chain.answer)
        verdict = verifier.verify([chain.prompt], [reply], [str(chain.answer)])[0]
        assert verdict.reward == verdict.components["steps"] == 1.0, (chain.prompt, reply, verdict)
        assert verifier.required(chain.prompt, str(chain.answer)) == len(chain.steps)


def test_the_schoolbooks_errors_are_found(verifier):
    draw = random.Random(1)
    wrong = 0
    for _ in range(300):
        chain = draw_chain(draw)
        reply = taught_reply(chain, draw)
        same = reply == chain_reply(chain.steps, chain.answer)
        verdict = verifier.verify([chain.prompt], [reply], [str(chain.answer)])[0]
        assert (verdict.components["steps"] == 1.0) == same, (chain.prompt, reply, verdict)
        wrong += not same
    assert wrong > 50


@pytest.mark.parametrize(
    "completion, wanted, share",
    [
        (RIGHT, "RRR", 1.0),
        ("12 - 3 = 10; 10 * 2 = 20; 20 - 6 = 14; answer 14.", "xxx", 0.0),  # built on an error
        ("12 - 3 = 9; 9 * 2 = 19; 19 - 6 = 13; answer 13.", "Rxx", 1 / 3),
        ("12 - 3 = 9; 12 - 3 = 9; 9 * 2 = 18; 18 - 6 = 12; answer 12.", "RiRR", 0.75),  # repeated
        ("12 - 3 = 9; 9 + 3 = 12; 9 * 2 = 18; 18 - 6 = 12; answer 12.", "RiRR", 0.75),  # true and idle
        ("12 - 3 = 9; 9 * 2 = 18; 18 - 6 = 12; " + "12 - 3 = 9; " * 7 + "answer 12.", "RRRiiiiiii", 0.3),
        ("12 - 3 = 9; 5 + 5 = 10; 9 * 2 = 18; 18 - 6 = 12; answer 12.", "RxRR", 0.75),  # from nowhere
        ("12 = 12; 9 = 9; answer 12.", "xx", 0.0),
        ("12 - 3 = 12 - 3; answer 12.", "x", 0.0),
        ("answer 12.", "", 0.0),
        ("", "", 0.0),
        ("12 - 3 = nine; answer 12.", "x", 0.0),
        ("12 - 3 = 9; 9 + 9 = 18; 18 - 6 = 12; answer 12.", "RRR", 1.0),  # doubling by adding
    ],
)
def test_what_counts(verifier, completion, wanted, share):
    assert flags(verifier, completion) == wanted
    assert score(verifier, completion) == pytest.approx(share)


def test_ends_lie_just_after_the_steps(verifier):
    ends = [step.end for step in verifier.steps([PROMPT], [RIGHT], ["12"])[0]]
    assert [RIGHT[:end].rsplit("; ", 1)[-1] for end in ends] == ["12 - 3 = 9", "9 * 2 = 18", "18 - 6 = 12"]


APPLES = "Anna has 12 apples, gives away 3 and doubles the rest. How many has she after she eats 6?"
WRITTEN = {
    "lines": "12 - 3 = 9\n9 * 2 = 18\n18 - 6 = 12\n#### 12",
    "sentences": "She keeps 12 - 3 = 9 apples. Then 9 × 2 = 18 apples. At last 18 − 6 = 12. The answer is 12.",
    "numbered": "1. 12 - 3 = 9\n2. 9 x 2 = 18\n3. 18 - 6 = 12\nAnswer: 12",
    "semicolons": "12 - 3 = 9; 9 * 2 = 18; 18 - 6 = 12; answer 12",
    "gsm8k": "She keeps 12 - 3 = <<12-3=9>>9.\nThen 9*2 = <<9*2=18>>18.\nLeft: <<18-6=12>>12.\n#### 12",
}


@pytest.mark.parametrize("form", WRITTEN)
def test_every_form_is_split(form):
    row = json.dumps({"answer": 12, "required": 3})
    for split in {"auto", form if form != "gsm8k" else "lines"} - ({"auto"} if form == "numbered" else set()):
        made = Steps(split=split)
        assert flags(made, WRITTEN[form], APPLES, row) == "RRR", split
        assert made.verify([APPLES], [WRITTEN[form]], [row])[0].reward == 1.0
        assert made.required(APPLES, row) == 3 and made.required(APPLES, "12") is None


def test_circles_and_detours_lose_in_free_problems(verifier):
    row = json.dumps({"answer": 12, "required": 3})
    straight = WRITTEN["semicolons"]
    circle = "12 - 3 = 9; 9 + 3 = 12; " + straight
    assert score(verifier, straight, APPLES, row) == 1.0
    assert score(verifier, circle, APPLES, row) <= 0.6
    assert score(verifier, "12 * 12 = 144; 144 * 12 = 1728; " + straight, APPLES, row) == 0.6


WORKED = ["12 - 3 = 9", "9 * 2 = 18", "18 - 6 = 12"]
KNOWN = joined("12", 3, WORKED)
COUNTED = json.dumps({"answer": 12, "required": 3})


@pytest.mark.parametrize(
    "completion, worked, counted, unknown",
    [
        ("12 - 3 = 9; answer 5.", 1 / 3, 1 / 3, 1.0),  # one trivial step of three
        (WRITTEN["semicolons"], 1.0, 1.0, 1.0),
        ("12 - 3 = 9; 9 * 2 = 18; answer 12.", 2 / 3, 2 / 3, 1.0),
        ("12 - 3 = 9; 9 * 2 = 18; 18 - 6 = 13; answer 13.", 2 / 3, 2 / 3, 2 / 3),
        ("12 * 3 = 36; 36 * 2 = 72; 72 * 6 = 432; answer 5.", 0.0, 2 / 3, 1.0),  # true, and leads nowhere
        ("12 - 3 = 9; 9 * 12 = 108; 108 * 2 = 216; answer 5.", 1 / 3, 2 / 3, 1.0),
        (
            "12 * 2 = 24; 3 * 2 = 6; 24 - 6 = 18; 18 - 6 = 12; answer 12.",
            0.75,
            0.75,
            0.75,
        ),  # another way, longer by one
    ],
)
def test_steps_are_measured_against_what_the_row_needs(verifier, completion, worked, counted, unknown):
    for row, share in ((KNOWN, worked), (COUNTED, counted), ("12", unknown)):
        assert score(verifier, completion, APPLES, row) == pytest.approx(share), row
    assert verifier.required(APPLES, KNOWN) == 3


def test_the_worked_steps_say_where_a_solution_leads_whose_answer_no_step_gives(verifier):
    prompt = "A bus has 40 seats, 130 ride. How many buses?"
    rounded = joined("4 buses", 1, ["130 / 40 = 3.25"])
    assert score(verifier, "130 / 40 = 3.25; answer 4 buses", prompt, rounded) == 1.0
    assert score(verifier, "130 - 40 = 90; answer 4 buses", prompt, rounded) == 0.0
    counted = json.dumps({"answer": 4, "required": 1})  # the answer is right, and the number of steps
    assert score(verifier, "130 / 40 = 3.25; answer 4", prompt, counted) == 1.0
    assert score(verifier, "130 / 40 = 3.25; answer 5", prompt, counted) == 0.0


def test_a_reference_keeps_the_row_s_own_answer():
    assert reference(KNOWN) == Reference("12", 3, tuple(WORKED)) and own_answer(KNOWN) == "12"
    given = json.dumps({"answer": "12", "more": [1]})
    assert reference(joined(given, 3, WORKED)) == Reference("12", 3, tuple(WORKED))
    assert own_answer(joined(given, 3, [])) == given and own_answer(given) == given
    assert reference("{no json") == Reference("{no json") and own_answer("7") == "7"


def test_a_separator_of_ones_own_cannot_hang():
    made = Steps(separator=r"(a+)+b|;", seconds=1)
    try:
        assert flags(made, RIGHT) == "RRR"
        assert flags(made, "a" * 60 + "c") == ""
    finally:
        made.close()


def test_algebraic_steps():
    made = Steps(algebra=True, seconds=6)
    prompt = "Solve 2x + 3 = 7."
    try:
        assert flags(made, "2x = 7 - 3\n2x = 4\nx = 2\nanswer x = 2", prompt, "2") == "RRR"
        assert flags(made, "2x = 10\nx = 5\nanswer 5", prompt, "2") == "xx"
        assert flags(made, "2x + 3 = 7\n2x = 4\n2x = 4\nx = 2", prompt, "2") == "iRiR"
        assert made.verify([prompt], ["2x = 4\nx = 2\nanswer x = 2"], ["2"])[0].reward == 1.0
        assert flags(made, "x^64^64^64 = 4\n" + "x^60" * 40 + " = 1\nx = 2", prompt, "2")[-1] == "R"
        assert flags(made, "x + y = 3\n2x = 4\nx = 2", "Solve x + y = 3; x - y = 1.", "2") == "iRR"
    finally:
        made.close()


@pytest.mark.parametrize(
    "text, value",
    [("1 + 2 * 3", 7), ("(1 + 2) * 3", 9), ("-3 + 5", 2), ("1/3 + 1/6", Fraction(1, 2)), ("2(3)", 6), ("2 ** 10", 1024),
     ("1,000 - 1", 999), ("2^3", 8), ("0.1 + 0.2", Fraction(3, 10)), ("1/0", None), ("9^9^9", None), ("9^99", None), ("1 +", None),
     ("(" * 100 + "1" + ")" * 100, None), ("1" * 300, None), ("__import__", None), ("2x", None), ("((9^9)^9)^9", None)],
)  # fmt: skip
def test_expressions(text, value):
    tree = equations.parse(text)
    assert (None if tree is None else equations.evaluate(tree)) == value


@pytest.mark.parametrize(
    "completion, answer, right",
    [("12 - 3 = 9; answer 9.", "9", True), ("The answer is 9 apples", "9", True), ("\\boxed{9}", "9.0", True), ("9, then 8", "9", False),
     ("#### 1,000", "1000", True), ("answer 9. No, answer 8.", "9", False), ("Answer: Tarn.", "tarn", True), ("", "9", False)],
)  # fmt: skip
def test_final_answers(completion, answer, right):
    assert right_answer(completion, answer) is right
    assert final_answer("") is None


def test_the_score_of_nothing_is_0():
    assert step_score([], 3) == step_score([], None) == 0.0
