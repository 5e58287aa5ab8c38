"""The math verifier's short ways give math-verify's own verdicts."""

from __future__ import annotations

import random

import pytest

from engine.verify.boxes import box_of, plainly_equal
from engine.verify.polynomials import PI, polynomial
from engine.verify.registry import open_verifier

NUMBERS = ["42", "-42", "0", "042", "42.0", "41.9999999", "\\frac{84}{2}", "-\\frac{84}{2}", "\\frac{1}{3}", "0.3333333", "\\dfrac{2}{6}"]  # fmt: skip
ROUND = {
    "numbers": (NUMBERS, ["42", "-42", "0", "42.0", "\\frac{1}{3}", "\\frac{84}{2}", "0.33", "$42$"]),
    "fractions": (["3/4", "\\frac34", "\\frac{6}{8}", "0.75", "75\\%", "1\\frac{3}{4}", "\\frac{7}{4}"], ["3/4", "0.75", "7/4", "75\\%"]),
    "polynomials": (
        ["x^2 + 2x + 1", "(x+1)^2", "(x+1)(x+1)", "x^2+2x", "\\frac{2x}{2} + 0", "x", "\\left(x + 1\\right)^{2}", "y^2+2y+1", "2x\\cdot 3"],
        ["(x+1)^2", "x^2+2x+1", "x", "x(x+2)+1", "6x", "$x^2+2x+1$"],
    ),
    "letters that are more": (["5m", "5", "3e", "2i", "ab", "b a", "2x^10", "f(x)", "x(2)", "2t"], ["5", "3e", "ba", "2i", "2x", "f(x)", "2t"]),
    "sets and lists": (["\\{1, 2\\}", "\\{2,1\\}", "1, 2", "(1, 2)", "2 \\text{ and } 1", "\\emptyset"], ["\\{1,2\\}", "(1,2)", "1,2"]),
    "intervals": (["(1, 2]", "[1,2]", "1 < x \\leq 2", "(-\\infty, 3)", "x < 3"], ["(1,2]", "[1,2]", "x<3", "(-\\infty,3)"]),
    "equations": (["x = 3", "3", "x = 2, y = 3", "y = 3", "3 = x", "x+1=4"], ["3", "x=3", "x=2,y=3"]),
    "roots": (["\\sqrt{8}", "2\\sqrt{2}", "2.828427", "\\sqrt 2", "\\pi", "3.14159265"], ["2\\sqrt{2}", "\\pi", "\\sqrt{2}"]),
    "units and words": (["5 \\text{ cm}", "5\\text{cm}^2", "5 km", "\\$5", "5^\\circ", "\\text{Paris}", "A", "\\text{(A)}"], ["5", "5\\text{ cm}", "Paris", "A"]),
    "what cannot be read": (["\\frac{", "\\foo{3}", "", "?", "3 \\frac", "1,234", "x_1"], ["3", "1234", "?", "x_1"]),
}  # fmt: skip
"""Boxes and references; each box is judged against each reference of its kind."""
AROUND = [
    "{box}", "12 and 30 make {box}, not 7.", "So $x = 2$ and then \\[ {box} \\] as \\(y = {{3}}\\).", "costs $5, thus ${box}$.",
    "The answer is 42. {box}", "The final answer is ${box}$. I hope it is correct.", "The final answer is 3; {box}", "${box}$%", "{box} percent",
    "[ {box} ] or {{7}}", "{box} or \\boxed{{9}}", "First \\boxed{{1}}, then {box}", "answer: 3/4 {box}\nand $\\frac{{3}}{{4}}$",
]  # fmt: skip


def plainly_math_verify(completion, answer):
    """The library alone, on the whole completion: what is to be found in whatever way."""
    from math_verify import parse, verify  # slow to import

    gold = parse(f"${answer}$" if "$" not in answer and "\\boxed" not in answer else answer, parsing_timeout=None)
    gold = gold or parse(answer, parsing_timeout=None)
    return bool(verify(gold, parse(completion, parsing_timeout=None), timeout_seconds=None))


def pairs():
    """Every box in one surrounding, in turn; the first box of each kind in all."""
    found, turn = [], 0
    for boxes, answers in ROUND.values():
        for i, box in enumerate(boxes):
            for answer in answers:
                turn += 1
                around = AROUND if i == 0 and answer == answers[0] else [AROUND[turn % len(AROUND)]]
                found += [(form.format(box=f"\\boxed{{{box}}}"), answer) for form in around]
    return found


@pytest.fixture(scope="module")
def judged():
    """(completion, answer, the library's verdict)"""
    return [(completion, answer, plainly_math_verify(completion, answer)) for completion, answer in pairs()]


def test_the_verifier_says_what_math_verify_says_of_the_whole_completion(judged, tmp_path):
    verifier = open_verifier({"kind": "math", "seconds": 20}, tmp_path)
    try:
        completions, answers, wanted = zip(*judged, strict=True)
        first = [one.reward == 1 for one in verifier.verify([""] * len(judged), completions, answers)]
        boxed = [i for i, completion in enumerate(completions) if box_of(completion) is not None]
        sides = [[side[i] for i in boxed] for side in (completions, answers)]
        again = [one.reward == 1 for one in verifier.verify([""] * len(boxed), *sides)]
    finally:
        verifier.close()
    assert [(*one, found) for one, found in zip(judged, first, strict=True) if one[2] is not found] == []
    assert again == [first[i] for i in boxed]
    assert 0.2 < sum(wanted) / len(wanted) < 0.8


def test_what_needs_no_mathematics_is_a_good_part_and_judged_alike(judged):
    known = [
        (completion, answer, wanted, plainly_equal(box, answer))
        for completion, answer, wanted in judged
        if (box := box_of(completion)) is not None
    ]
    known = [one for one in known if one[3] is not None]
    assert len(known) > 60 and {one[3] for one in known} == {True, False}
    assert [one for one in known if one[2] is not one[3]] == []


def _random_polynomial(draw, depth=0):
    kind = draw.choice("nnlls*+-^f" if depth < 3 else "nl")
    below = lambda: _random_polynomial(draw, depth + 1)  # noqa: E731
    if kind == "n":
        return str(draw.randint(0, 12))
    if kind == "l":
        return f"{draw.choice(['', '2', '3'])}{draw.choice('xyabkn')}"
    if kind == "s":
        return f"-{draw.choice('xyab')}"
    if kind == "*":
        return f"({below()})" + draw.choice(["", " \\cdot "]) + f"({below()})"
    if kind == "^":
        return f"({below()})^{draw.choice(['2', '{2}', '3'])}"
    if kind == "f":
        return f"\\frac{{{draw.choice(['x', '2y', '3', 'a+1'])}}}{{{draw.randint(1, 5)}}}"
    return f"{below()} {kind} {below()}"


def test_random_polynomials_are_compared_as_math_verify_does():
    draw, compared, equal = random.Random(4), 0, 0
    for _ in range(80):
        text = _random_polynomial(draw)
        one = polynomial(text)
        if one is None:
            continue
        written = " + ".join(
            "*".join([f"({factor})", *(f"{letter}^{{{power}}}" for letter, power in monomial)])
            for monomial, factor in one.items()
        )
        expanded = written.replace("/", "}{").replace("(", "(\\frac{").replace(")", "})") if "/" in written else written
        expanded = expanded.replace("*", " \\cdot ") or "0"
        for other in (expanded, _random_polynomial(draw), text + " + 1"):
            said = plainly_equal(text, other)
            if said is not None:
                compared, equal = compared + 1, equal + said
                assert plainly_math_verify(f"\\boxed{{{text}}}", other) is said, (text, other)
    assert compared > 40 and 15 < equal < compared


def _random_root(draw, depth=0):
    kind = draw.choice("nrrrp+-*fg" if depth < 2 else "nr")
    below = lambda: _random_root(draw, depth + 1)  # noqa: E731
    number = draw.choice([2, 3, 4, 5, 6, 8, 12, 16, 18, 50, 54, 72])
    root = draw.choice(["\\sqrt", "\\sqrt", "\\sqrt[3]", "\\sqrt[4]"])
    if kind == "n":
        return str(draw.randint(0, 9))
    if kind == "r":
        others = ["\\sqrt 2", "x\\sqrt{3}", "\\pi", "4\\pi^2", "x\\pi"]
        return draw.choice([f"{root}{{{number}}}", f"{draw.randint(2, 9)}{root}{{{number}}}", *others])
    if kind == "p":
        return f"({below()})^2"
    if kind == "*":
        return f"({below()}) \\cdot ({below()})"
    if kind == "f":
        above = draw.choice([f"{root}{{{number}}}", "\\pi"])
        return f"\\frac{{{draw.choice(['', '2'])}{above}}}{{{draw.randint(1, 9)}}}"
    if kind == "g":
        return f"\\frac{{{draw.randint(1, 9)}}}{{{draw.choice(['', '3'])}{root}{{{number}}}}}"
    return f"{below()} {kind} {below()}"


def _power(base, power):
    if not base.isdigit():
        name = base.replace(PI, "\\pi")
        return f"{name}^{{{power}}}"
    return f"\\sqrt[{power.denominator}]{{{int(base) ** power.numerator}}}"


def _written_out(one):
    """Another way to write the same, a fraction for each coefficient."""
    return " + ".join(
        f"\\frac{{{factor.numerator}}}{{{factor.denominator}}}"
        + "".join(f" \\cdot {_power(base, power)}" for base, power in monomial)
        for monomial, factor in one.items()
    )  # fmt: skip


def test_random_roots_are_compared_as_math_verify_does():
    draw, compared, equal = random.Random(9), 0, 0
    for _ in range(80):
        text = _random_root(draw)
        one = polynomial(text)
        if one is None:
            continue
        for other in (_written_out(one) or "0", _random_root(draw), text + " + \\sqrt{2}"):
            said = plainly_equal(text, other)
            if said is not None:
                compared, equal = compared + 1, equal + said
                assert plainly_math_verify(f"\\boxed{{{text}}}", other) is said, (text, other)
    assert compared > 80 and 20 < equal < compared


def test_roots_whose_values_only_seem_equal_are_left_to_math_verify():
    assert plainly_equal("\\sqrt{2}", "\\frac{1393}{985}") is None  # they differ in the seventh decimal
    assert plainly_equal("\\pi", "\\frac{355}{113}") is None
    assert plainly_equal("\\sqrt{2}", "\\frac{17}{12}") is plainly_equal("\\pi", "\\frac{22}{7}") is False
    assert (
        plainly_equal("\\frac{1}{\\sqrt[3]{4}} \\cdot \\sqrt 2", "\\frac{\\sqrt[6]{32}}{2}") is True
    )  # 2 to 1/2 - 2/3
    for text in (
        "\\sqrt[12]{8}",
        "\\sqrt[n]{8}",
        "\\sqrt[3]{-8}",
        "\\pi(2)",
        "\\pi_1",
        "\\frac{1}{\\pi}",
        "\\sqrt{x}",
        "\\sqrt{-4}",
        "\\sqrt 23",
        "\\sqrt{2} 3",
        "\\frac{1}{1 + \\sqrt{2}}",
        "A",
        "2A",
    ):
        assert polynomial(text) is None


@pytest.mark.parametrize(
    "text", ["2x^10", "x(y+1)", "2\\frac{1}{2}", "2/3x", "1.5x", "e", "3i", "5m", "x^x", "x/y", "1,000", "", "--x", "x2", "(1)2", "x" * 500, "(x+y+z+a+b)^9",
     "(((((((9^9)^9)^9)^9)^9)^9)^9)^9"],
)  # fmt: skip
def test_what_could_be_read_otherwise_is_left_to_math_verify(text):
    assert polynomial(text) is None


def test_what_stands_in_the_one_box():
    assert box_of("so $\\boxed{\\frac{1}{2}}$.") == "\\frac{1}{2}" and box_of("\\boxed{ \\{1\\} }") == "\\{1\\}"
    for text in (
        "42",
        "\\boxed{1} or \\boxed{2}",
        "the final answer is 7. \\boxed{42}",
        "\\boxed{5}\\%",
        "\\boxed{3",
        "\\fbox{1} \\boxed{2}",
    ):
        assert box_of(text) is None  # fmt: skip


def test_the_same_box_and_answer_are_looked_at_once(tmp_path):
    verifier = open_verifier({"kind": "math", "seconds": 20}, tmp_path)
    asked = []
    call = verifier._workers.call
    verifier._workers.call = lambda questions: asked.append(len(set(questions))) or call(questions)
    try:
        texts = [f"{i}: $\\boxed{{\\log_2 8}}$" for i in range(6)]
        for _ in range(2):
            assert [one.reward for one in verifier.verify([""] * 6, texts, ["3"] * 6)] == [1.0] * 6
    finally:
        verifier.close()
    assert asked == [1, 0, 0, 0]
