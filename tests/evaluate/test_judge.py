"""The judge decides on whole completions, a match that never ends is ended, and a broken judge file is bad input."""

import re
from contextlib import closing

import psutil
import pytest
import yaml

from engine.verify.answers import matches
from engine.verify.judge import load_judge
from engine.verify.patterns import TOGETHER
from recipes.errors import InputError
from recipes.resources import assets_folder

PLAIN = 'preferred: "Yes(, gladly)?\\\\."\nrejected: "No\\\\."\n'
ENDLESS = 'preferred: "(\\\\w+ ?)+!"\nrejected: "No\\\\."\n'
NEVER = "word " * 12 + "without what the pattern wants at its end"
"""About 2 to the number of its letters ways to divide it into words."""


def judge(tmp_path, text=PLAIN):
    path = tmp_path / "judge.yaml"
    path.write_text(text)
    return load_judge(path)


def verdicts(one, *completions, finished=True):
    with closing(one):
        return one.verdicts(completions, [finished] * len(completions))


def test_verdicts(tmp_path):
    asked = (" Yes, gladly. ", "No.", "Yes. Yes. Yes.", "", "No.")
    assert verdicts(judge(tmp_path), *asked) == ["preferred", "rejected", "broken", "broken", "rejected"]
    assert verdicts(judge(tmp_path), "Yes.", "No.", finished=False) == ["broken", "broken"]
    assert verdicts(judge(tmp_path)) == []


def test_many_are_judged_as_python_itself_would():
    path = assets_folder() / "lab" / "data" / "tone.yaml"
    preferred, rejected = (re.compile(text, re.DOTALL) for text in yaml.safe_load(path.read_text()).values())
    warm = "Oh, I love the lamp! It makes me smile every day. You will love it as I do. With love, and see you soon!"
    formal = (
        "The lamp serves a public purpose. It is maintained by the office. Any change must be approved first. "
        "The matter is therefore closed."
    )
    texts = [f"{text}{tail}" for text in (warm, formal) for tail in ("", "\n", " And.", "\ufffd", "\ud800", "\0")]
    texts = [
        text.replace("lamp", f"lamp{chr(97 + i // 26)}{chr(97 + i % 26)}")
        for i in range(2 * TOGETHER)
        for text in texts
    ]
    wanted = [
        "preferred"
        if preferred.fullmatch(text.strip())
        else "rejected"
        if rejected.fullmatch(text.strip())
        else "broken"
        for text in texts
    ]
    assert {"preferred", "rejected", "broken"} == set(wanted)
    assert verdicts(load_judge(path), *texts) == wanted


def test_a_match_that_never_ends_breaks_its_completion_alone_and_is_told_once(tmp_path):
    one, told = judge(tmp_path, ENDLESS), []
    one.tell(told.append)
    asked = ("Yes gladly!", NEVER, "No.", "No!", NEVER + " again", "No. No.")
    wanted = ["preferred", "broken", "rejected", "preferred", "broken", "broken"]
    assert verdicts(one, *asked) == wanted
    (said,) = told
    assert "`preferred`" in said and r"(\\w+ ?)+!" in said and NEVER[:40] in said and NEVER not in said
    assert verdicts(one, *asked) == wanted, "a judge that was closed begins anew"
    assert len(told) == 1


def test_what_a_later_pattern_says_counts_no_more_once_the_first_came_to_no_end(tmp_path):
    assert verdicts(judge(tmp_path, ENDLESS.replace('"No\\\\."', '".*"')), NEVER, "No.") == ["broken", "rejected"]
    told = []
    one = judge(tmp_path, "preferred: 'Yes|.*a'\nrejected: '(\\w+ ?)+!'\n")
    one.tell(told.append)
    assert verdicts(one, NEVER, NEVER + " a") == ["broken", "preferred"] and "`rejected`" in told[0]


def test_its_processes_begin_with_the_first_completion_and_end_with_it(tmp_path):
    one, me = judge(tmp_path, ENDLESS), psutil.Process()
    before = set(me.children(recursive=True))
    assert one.verdicts(["cut"], [False]) == ["broken"] and set(me.children(recursive=True)) == before
    assert one.verdicts(["Yes!", NEVER], [True, True]) == ["preferred", "broken"]
    begun = set(me.children(recursive=True)) - before
    assert begun
    one.close()
    _, left = psutil.wait_procs(begun, timeout=60)
    assert not left


@pytest.mark.parametrize(
    "text, named",
    [
        ("preferred: a\n", "preferred"),
        ("preferred: a\nrejected: '('\n", "rejected"),
        ("preferred: a\nrejected: 'a{99999999999999999999}'\n", "rejected"),
        ("- a\n", "list"),
        ("a: [", "unreadable"),
    ],
)
def test_a_bad_judge_file_is_named(tmp_path, text, named):
    with pytest.raises(InputError, match=named) as caught:
        judge(tmp_path, text)
    assert "judge.yaml" in str(caught.value)


def test_answers_match_whole_and_tolerate_what_does_not_matter():
    assert matches(" tarn. ", "Tarn")
    assert not matches("Tarn or Bree.", "Tarn")
    assert not matches("", "Tarn")
