"""Each kind of verifier on right, wrong, odd and hostile completions."""

from __future__ import annotations

import contextlib
import json
import shutil

import psutil
import pytest

from engine.verify.code import same
from engine.verify.interface import StepVerifier
from engine.verify.registry import open_verifier
from engine.verify.sandbox import jails
from recipes.errors import InputError


@pytest.fixture
def opened(tmp_path):
    """Opens verifiers, and closes them at the end, with nothing left running."""
    made = []

    def open_one(**spec):
        made.append(open_verifier(spec, tmp_path))
        return made[-1]

    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield open_one
    for verifier in made:
        verifier.close()
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


def rewards(verifier, pairs, prompt=""):
    completions, answers = zip(*pairs, strict=True)
    verdicts = verifier.verify([prompt] * len(pairs), completions, answers)
    for verdict in verdicts:
        assert 0 <= verdict.reward <= 1 and all(0 <= part <= 1 for part in verdict.components.values())
        assert verdict.reward == 1 or verdict.detail
    return [verdict.reward for verdict in verdicts]


def test_numbers_are_exact(opened):
    right = [
        ("12 - 3 = 9; answer 9.", "9"), ("It costs $1,234.50", "1234.5"), ("so 3/4", "0.75"), ("-7", "-7"), ("\u22127.", "-7"),
        ("0.1", "1/10"), ("1e3", "1000"), ("answer 0009", "9"), ("100000000000000000000000001", "100000000000000000000000001"),
    ]  # fmt: skip
    wrong = [
        ("9 or 10", "9"), ("", "9"), ("nine", "9"), ("10-9", "-9"), ("0.30000000000000004", "0.3"), ("1/0", "0"),
        ("100000000000000000000000001", "100000000000000000000000000"), ("9" * 100_000, "9"), ("1,23", "123"), ("x9", "9"),
    ]  # fmt: skip
    verifier = opened(kind="number")
    assert rewards(verifier, right) == [1.0] * len(right)
    assert rewards(verifier, wrong) == [0.0] * len(wrong)


def test_a_pattern_says_where_the_number_stands(opened):
    verifier = opened(kind="number", pattern=r"answer (\S+)\.", seconds=1.0)
    assert rewards(verifier, [("answer 9. Or 10", "9"), ("answer 8. answer 9.", "9"), ("9", "9")]) == [1.0, 1.0, 0.0]


def test_exact(opened):
    assert rewards(opened(kind="exact"), [("Tarn.", "tarn"), ("Tarn or Bree", "tarn")]) == [1.0, 0.0]


MATH = [
    ("The answer is $\\frac{1}{2}$.", "0.5", 1.0), ("\\boxed{x^2 + 2x + 1}", "(x+1)^2", 1.0), ("$\\{1, 2\\}$", "\\{2,1\\}", 1.0),
    ("\\boxed{\\sqrt{8}}", "2\\sqrt{2}", 1.0), ("The answer is 42", "42", 1.0), ("\\boxed{41}", "42", 0.0), ("", "42", 0.0),
    ("I do not know", "42", 0.0),
]  # fmt: skip


def test_math(opened):
    verifier = opened(kind="math", seconds=20)
    assert rewards(verifier, [(text, answer) for text, answer, _ in MATH]) == [wanted for _, _, wanted in MATH]


def test_what_hangs_sympy_scores_0_and_the_others_as_ever(opened):
    verifier = opened(kind="math", seconds=4)
    hostile = [
        "9**9**9**9**9",
        "$9^{9^{9^{9^9}}}$",
        "\\boxed{" + "(" * 3000 + "1" + ")" * 3000 + "}",
        "\\boxed{100000!!}",
    ]
    hostile.append("$\\int_0^{\\infty} \\sin(x^x)^{x^x} dx$")
    pairs = [(text, "42") for text in hostile] + [("\\boxed{42}", "42")]
    assert rewards(verifier, pairs) == [0.0] * len(hostile) + [1.0]
    assert rewards(verifier, [("\\boxed{42}", "42")]) == [1.0]


def test_a_killed_worker_is_replaced_and_its_work_done_again(opened):
    verifier = opened(kind="math", seconds=20)
    assert rewards(verifier, [("\\boxed{42}", "42")]) == [1.0]
    _kill_children()
    assert rewards(verifier, [("\\boxed{42}", "42")]) == [1.0]


def _kill_children():
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def test_regex(opened):
    verifier = opened(kind="regex", pattern=r"<think>.*</think>\s*\d+", seconds=5)
    assert rewards(verifier, [("<think>a\nb</think> 7", ""), ("<think>a</think> 7 or so", "")]) == [1.0, 0.0]
    asking = opened(kind="regex", pattern=r".*answer (?P<answer>\d+)", seconds=5)
    verdict = asking.verify([""], ["so answer 7"], ["8"])[0]
    assert verdict.components == {"format": 1.0, "answer": 0.0} and verdict.reward == 0.0
    assert rewards(asking, [("so answer 7", "7")]) == [1.0]


def test_a_pattern_that_backtracks_for_ever_scores_0(opened):
    verifier = opened(kind="regex", pattern=r"(a+)+b", seconds=1)
    assert rewards(verifier, [("a" * 60 + "c", ""), ("aab", "")]) == [0.0, 1.0]


def test_json(opened, tmp_path):
    schema = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    for given in (schema, "schema.json"):
        verifier = opened(kind="json", json_schema=given, answer="a", seconds=5)
        pairs = [
            ('{"a": 7}', "7"),
            ('```json\n{"a": 7}\n```', "7"),
            ('{"a": "7"}', "7"),
            ('{"a": 8}', "7"),
            ("[" * 9999, "7"),
        ]
        assert rewards(verifier, pairs) == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert rewards(opened(kind="json", seconds=5), [("[1]", ""), ("{", "")]) == [1.0, 0.0]


def needs_sandbox():
    jail, reason = jails.find_jail()
    if jail is None:
        pytest.skip(reason)


def test_code_by_share_and_programs(opened):
    needs_sandbox()
    tests = {"tests": [{"input": [1, 2], "output": 3}, {"input": [2, 2], "output": 5}], "entry": "add"}
    pair = [("def add(a, b):\n    return a + b", json.dumps(tests))]
    assert rewards(opened(kind="code", reward="share"), pair) == [0.5]
    assert rewards(opened(kind="code"), pair) == [0.0]
    program = json.dumps({"tests": [{"input": "3 4\n", "output": "7\n"}]})
    text = "Here it is:\n```python\na, b = map(int, input().split())\nprint(a + b)\n```\nDone."
    assert rewards(opened(kind="code"), [(text, program), ("print(8)", program), (text, "[]")]) == [1.0, 0.0, 0.0]


def test_same_means_the_same_types():
    assert same({"a": [1, "x", None]}, {"a": [1, "x", None]})
    for one, other in ((1, True), (1, 1.0), ([1], [1, 2]), ({"a": 1}, {"b": 1}), (None, 0), ("1", 1)):
        assert not same(one, other)


PYTHON = """
import json, os
calls = []
def verify(prompt, completion, answer):
    if completion == "hang":
        while True: pass
    if completion == "exit":
        os._exit(0)
    if completion == "raise":
        raise ValueError("not mine")
    if completion == "odd":
        return "very good"
    if completion == "big":
        return 7
    if completion == "escape":
        open(answer, "w").write("x")
    if completion == "parts":
        return {"format": 1, "answer": 0.5, "detail": "half"}
    return float(prompt + completion == answer)
"""


def test_a_users_verifier_runs_in_the_sandbox(opened, tmp_path):
    needs_sandbox()
    (tmp_path / "mine.py").write_text(PYTHON)
    verifier = opened(kind="python", path="mine.py", seconds=2)
    target = tmp_path / "escaped"
    pairs = [(word, "ab") for word in ("b", "c", "hang", "exit", "raise", "odd", "big")]
    assert rewards(verifier, [*pairs, ("escape", str(target)), ("b", "ab")], "a") == [1.0] + [0.0] * 7 + [1.0]
    assert not target.exists()
    verdict = verifier.verify([""], ["parts"], [""])[0]
    assert verdict.components == {"format": 1.0, "answer": 0.5} and verdict.reward == 0.75 and verdict.detail == "half"


CUSTOM = """
def steps(prompt, completion, answer):
    found, at = [], 0
    for part in completion.split(";"):
        at += len(part)
        found.append({"end": at, "accepted": "good" in part})
        at += 1
    return {"answer": float(completion.endswith(answer)), "steps": found if completion else [], "required": 2}
"""
PERL = """#!/usr/bin/perl
use strict; $| = 1;
while (<STDIN>) {
  my $right = /"completion": "good; yes"/ ? 1 : 0;
  print "{\\"output\\": {\\"answer\\": $right, \\"steps\\": [{\\"end\\": 4, \\"accepted\\": true}], \\"required\\": 1}}\\n";
}
"""


def test_custom_steps_in_python_and_in_another_language(opened, tmp_path):
    needs_sandbox()
    (tmp_path / "mine.py").write_text(CUSTOM)
    verifier = opened(kind="custom-steps", path="mine.py")
    assert isinstance(verifier, StepVerifier)
    found = verifier.steps([""], ["good; bad; yes"], ["yes"])[0]
    assert [(step.end, step.accepted) for step in found] == [(4, True), (9, False), (14, False)]
    verdict = verifier.verify([""], ["good; bad; yes"], ["yes"])[0]
    assert verdict.reward == 1.0 and verdict.components["steps"] == pytest.approx(1 / 3)
    assert verifier.required("", "yes") == 2
    if not shutil.which("perl"):
        pytest.skip("no perl")
    program = tmp_path / "mine.pl"
    program.write_text(PERL)
    program.chmod(0o755)
    verifier = opened(kind="custom-steps", path="mine.pl")
    assert rewards(verifier, [("good; yes", ""), ("bad; no", "")]) == [1.0, 0.0]
    assert verifier.verify([""], ["good; yes"], [""])[0].components["steps"] == 1.0


def test_a_sum_weighs_its_parts(opened):
    parts = [{"verifier": {"kind": "number"}, "weight": 3}, {"verifier": {"kind": "exact"}, "weight": 1}]
    verifier = opened(kind="sum", components=parts)
    verdict = verifier.verify([""], ["so 7"], ["7"])[0]
    assert verdict.reward == verdict.correctness == 0.75
    assert verdict.components["number"] == 1.0 and verdict.components["exact"] == 0.0


@pytest.mark.parametrize("weights", [(0.1,), (0.3, 0.6, 0.1), (1, 2, 3, 4, 5, 6), (0.1,) * 6, (1 / 3, 1 / 7, 1 / 11)])
def test_a_sum_of_what_is_wholly_right_is_exactly_one(opened, weights):
    verifier = opened(kind="sum", components=[{"verifier": {"kind": "exact"}, "weight": one} for one in weights])
    assert [one.reward for one in verifier.verify(["", ""], ["7", "8"], ["7", "7"])] == [1.0, 0.0]


def test_the_correctness_of_a_sum_is_that_of_its_parts_that_judge_answers(opened):
    """A right answer in the wrong form is a right answer; the right form around a wrong one is not."""
    parts = [
        {"verifier": {"kind": "number"}, "weight": 1},
        {"verifier": {"kind": "regex", "pattern": "<a>.*</a>"}, "weight": 3},
    ]
    verdicts = opened(kind="sum", components=parts).verify([""] * 2, ["it is 7", "<a>8</a>"], ["7"] * 2)
    assert [(one.reward, one.correctness) for one in verdicts] == [(0.25, 1.0), (0.75, 0.0)]
    form_alone = opened(kind="sum", components=parts[1:]).verify([""], ["<a>8</a>"], ["7"])[0]
    assert form_alone.correctness == form_alone.reward == 1.0


@pytest.mark.parametrize(
    "spec, named",
    [
        ({"kind": "python", "path": "none.py"}, "none.py"),
        ({"kind": "python", "path": "broken.py"}, "broken.py"),
        ({"kind": "python", "path": "plain.txt"}, "Python file"),
        ({"kind": "custom-steps", "path": "plain.txt"}, "chmod"),
        ({"kind": "json", "json_schema": "none.json"}, "none.json"),
        ({"kind": "json", "json_schema": {"type": "nothing"}}, "schema"),
    ],
)
def test_bad_files_are_named(tmp_path, spec, named):
    (tmp_path / "broken.py").write_text("def verify(:")
    (tmp_path / "plain.txt").write_text("x")
    with pytest.raises(InputError, match=named):
        open_verifier(spec, tmp_path)


def test_without_a_sandbox_code_is_refused_with_the_reason_and_the_package(tmp_path, monkeypatch):
    """Bubblewrap is not on the path, and Landlock is left out of the guests, who are found to get out."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(jails.Landlock, "landlock", False)
    jails.find_jail.cache_clear()
    try:
        for spec in ({"kind": "code"}, {"kind": "sum", "components": [{"verifier": {"kind": "code"}}]}):
            with pytest.raises(InputError) as caught:
                open_verifier(spec, tmp_path)
            said = str(caught.value)
            assert "bwrap" in said and "read a private file" in said and "apt install bubblewrap" in said
        number = open_verifier({"kind": "number"}, tmp_path)
        assert number.verify([""], ["7"], ["7"])[0].reward == 1.0
    finally:
        jails.find_jail.cache_clear()


def test_a_worker_that_cannot_start_is_told(tmp_path, monkeypatch):
    jails.find_jail()
    monkeypatch.setattr("engine.verify.sandbox.pool.python", lambda: "/nowhere/python")
    with pytest.raises(InputError, match="cannot be started"):
        open_verifier({"kind": "regex", "pattern": "a"}, tmp_path)
