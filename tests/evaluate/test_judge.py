"""The judge decides on whole completions, and a broken judge file is bad input."""

import pytest

from engine.verify.answers import matches
from engine.verify.judge import load_judge
from recipes.errors import InputError


def judge(tmp_path, text='preferred: "Yes(, gladly)?\\\\."\nrejected: "No\\\\."\n'):
    path = tmp_path / "judge.yaml"
    path.write_text(text)
    return load_judge(path)


def test_verdicts(tmp_path):
    one = judge(tmp_path)
    assert one.verdict(" Yes, gladly. ") == "preferred"
    assert one.verdict("No.") == "rejected"
    assert one.verdict("Yes. Yes. Yes.") == one.verdict("") == "broken"
    assert one.verdict("Yes.", finished=False) == "broken"


@pytest.mark.parametrize(
    "text, named",
    [
        ("preferred: a\n", "preferred"),
        ("preferred: a\nrejected: '('\n", "rejected"),
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
