"""Datasets in their common spellings are recognised; what is wrong with them is told with file, line and field."""

from __future__ import annotations

import json

import pytest

from engine.data.prepare import hash_sources, load_conversations, load_general, load_heldout, load_preferences, prepare
from recipes.errors import InputError
from recipes.load import load_recipe


@pytest.fixture
def loaded(tmp_path):
    def make(method="sft", extra="", source="rows.jsonl"):
        text = f"name: x\nmodel: lab-nano\nstages:\n  - method: {method}\n    data: {{source: {source}{extra}}}\n"
        if method == "sft":
            text += "    replay: {share: 0.0}\n"
        (tmp_path / "recipe.yaml").write_text(text)
        return load_recipe(str(tmp_path / "recipe.yaml"))

    return make


def rows(tmp_path, items, name="rows.jsonl"):
    (tmp_path / name).write_text("".join(json.dumps(item) + "\n" for item in items))


SPELLINGS = {
    "messages": lambda i: {
        "messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"a{i}"}]
    },
    "sharegpt": lambda i: {"conversations": [{"from": "human", "value": f"q{i}"}, {"from": "gpt", "value": f"a{i}"}]},
    "prompt and completion": lambda i: {"prompt": f"q{i}", "completion": f"a{i}"},
    "prompt and answer": lambda i: {"prompt": f"q{i}", "answer": f"a{i}"},
    "alpaca": lambda i: {"instruction": f"q{i}", "input": "", "output": f"a{i}"},
    "chat prompt": lambda i: {"prompt": [{"role": "user", "content": f"q{i}"}], "completion": f"a{i}"},
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_conversations_in_every_spelling(spelling, tmp_path, loaded):
    rows(tmp_path, [SPELLINGS[spelling](i) for i in range(40)])
    found = prepare(loaded(), 0, tmp_path / "out")
    train, heldout = load_conversations(tmp_path / "out" / "train.jsonl"), load_heldout(tmp_path / "out")
    assert (found.rows, found.heldout) == (36, 4) == (len(train), len(heldout))
    assert all(row.messages[0]["role"] == "user" and row.messages[-1]["content"].startswith("a") for row in train)
    assert any("fewer than the 100" in warning for warning in found.warnings)


PAIRS = {
    "explicit": lambda i: {"prompt": f"q{i}", "chosen": f"good{i}", "rejected": f"bad{i}"},
    "whole conversations": lambda i: {
        side: [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"{word}{i}"}]
        for side, word in (("chosen", "good"), ("rejected", "bad"))
    },
}


@pytest.mark.parametrize("spelling", PAIRS)
def test_preferences_in_every_spelling(spelling, tmp_path, loaded):
    rows(tmp_path, [PAIRS[spelling](i) for i in range(30)])
    found = prepare(loaded("dpo"), 0, tmp_path / "out")
    assert load_preferences(tmp_path / "out" / "train.jsonl")[0].chosen.startswith("good")
    assert found.gap is None and any("gap is unknown" in warning for warning in found.warnings)


def test_the_gap_of_scored_pairs_is_scaled(tmp_path, loaded):
    rows(tmp_path, [PAIRS["explicit"](i) | {"score_chosen": 8, "score_rejected": 6 - i % 2 * 4} for i in range(30)])
    found = prepare(loaded("dpo"), 0, tmp_path / "out")
    assert found.gap == pytest.approx((2 + 6) / 2 / 6, abs=0.05)
    assert not any("preference gap" in warning for warning in found.warnings)


def test_a_gap_that_teaches_little_is_told(tmp_path, loaded):
    scores = [{"score_chosen": 5 + i % 2 * 5, "score_rejected": 4 + i % 2 * 5} for i in range(30)]  # one of six apart
    rows(tmp_path, [PAIRS["explicit"](i) | one for i, one in enumerate(scores)])
    found = prepare(loaded("dpo"), 0, tmp_path / "some")
    assert found.gap == pytest.approx(1 / 6) and not any("preference gap" in warning for warning in found.warnings)
    scores = [{"score_chosen": 1 + i, "score_rejected": i} for i in range(30)]  # one of thirty
    rows(tmp_path, [PAIRS["explicit"](i) | one for i, one in enumerate(scores)])
    found = prepare(loaded("dpo"), 0, tmp_path / "little")
    assert any(
        "the data's preference gap is 0.0" in warning and "0.15 or more" in warning for warning in found.warnings
    )


def test_csv_and_json_and_columns(tmp_path, loaded):
    (tmp_path / "rows.csv").write_text("Frage,Antwort\n" + "".join(f'"q, {i}",a{i}\n' for i in range(40)))
    found = prepare(
        loaded(extra=", columns: {prompt: Frage, completion: Antwort}", source="rows.csv"), 0, tmp_path / "a"
    )
    assert found.rows == 36
    (tmp_path / "rows.json").write_text(json.dumps([SPELLINGS["alpaca"](i) for i in range(40)]))
    assert prepare(loaded(source="rows.json"), 0, tmp_path / "b").rows == 36


def test_a_directory_is_read_whole(tmp_path, loaded):
    (tmp_path / "many").mkdir()
    for part in range(2):
        items = [SPELLINGS["alpaca"](part * 20 + i) for i in range(20)]
        (tmp_path / "many" / f"{part}.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    assert prepare(loaded(source="many"), 0, tmp_path / "out").rows == 36


def test_the_split_is_the_same_every_time_and_keeps_prompts_apart(tmp_path, loaded):
    rows(tmp_path, [{"prompt": f"q{i % 15}", "completion": f"a{i}"} for i in range(60)])
    prepare(loaded(), 0, tmp_path / "one")
    prepare(loaded(), 0, tmp_path / "two")
    for name in ("train.jsonl", "heldout.jsonl"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    asked = {row.messages[0]["content"] for row in load_conversations(tmp_path / "one" / "train.jsonl")}
    assert asked.isdisjoint(row.messages[0]["content"] for row in load_heldout(tmp_path / "one"))


@pytest.mark.parametrize(
    "content, said",
    [
        (b"", "no rows"),
        (b"\n\n", "no rows"),
        (b'{"prompt": "a", "completion": "b"}\nnot json\n', "line 2.*no JSON"),
        (b'{"prompt": "a", "completion": "b"}\n{"prompt": "\xff"}\n', "line 2.*UTF-8"),
        (b'["a"]\n', "line 1.*list.*one JSON object"),
        (b'{"prompt": "a", "completion": "b"}\n{"prompt": "c"}\n', "line 2.*completion.*nothing"),
        (b'{"prompt": "a", "completion": " "}\n', "line 1.*completion.*empty"),
        (b'{"promt": "a", "completion": "b"}\n', "columns `completion`, `promt`.*Did you mean `prompt`"),
        (b'{"messages": [{"role": "user", "content": "a"}]}\n', "no assistant turn"),
        (b'{"messages": [{"role": "uesr", "content": "a"}]}\n', "role `uesr`"),
        (b'{"messages": []}\n', "empty list"),
        (b'{"text": "a"}\n', "columns `text`"),
    ],
)  # fmt: skip
def test_bad_rows(content, said, tmp_path, loaded):
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(InputError, match=f"(?s)rows.jsonl.*{said}"):
        prepare(loaded(), 0, tmp_path / "out")


def test_wrong_columns_of_the_recipe(tmp_path, loaded):
    rows(tmp_path, [{"question_text": "a", "completion": "b"}])
    with pytest.raises(InputError, match="columns.prompt.*no column `question`.*Did you mean `question_text`"):
        prepare(loaded(extra=", columns: {prompt: question}"), 0, tmp_path / "out")


def test_missing_and_outside_files(tmp_path, loaded):
    rows(tmp_path, [])
    with pytest.raises(InputError, match="`row.jsonl`, which does not exist.*Did you mean `rows.jsonl`"):
        prepare(loaded(source="row.jsonl"), 0, tmp_path / "out")
    with pytest.raises(InputError, match="leads out of the recipe's folder"):
        prepare(loaded(source="../rows.jsonl"), 0, tmp_path / "out")
    with pytest.raises(InputError, match="Did you mean `lab/domain.jsonl`"):
        prepare(loaded(source="lab/domains.jsonl"), 0, tmp_path / "out")


def test_held_out_rows_that_are_trained_on_are_refused(tmp_path, loaded):
    rows(tmp_path, [SPELLINGS["prompt and completion"](i) for i in range(30)])
    rows(tmp_path, [SPELLINGS["messages"](i) for i in range(29, 40)], "held.jsonl")
    with pytest.raises(InputError, match="1 of 11 rows.*row 1"):
        prepare(loaded(extra=", heldout: held.jsonl"), 0, tmp_path / "out")


def test_useless_rows_are_left_out_and_counted(tmp_path, loaded):
    same = {"prompt": "q", "chosen": "x", "rejected": "x "}
    rows(tmp_path, [same, same, *(PAIRS["explicit"](i) for i in range(30)), PAIRS["explicit"](0)])
    found = prepare(loaded("dpo"), 0, tmp_path / "out")
    assert found.rows + found.heldout == 30
    assert any("2 pairs have the same text" in w for w in found.warnings)
    assert any("1 rows occur more than once" in w for w in found.warnings)


def test_hashes_follow_the_content(tmp_path, loaded):
    rows(tmp_path, [SPELLINGS["alpaca"](0)])
    before = hash_sources(loaded())
    rows(tmp_path, [SPELLINGS["alpaca"](1)])
    after = hash_sources(loaded())
    assert before["rows.jsonl"] != after["rows.jsonl"] and before["lab/suite.jsonl"] == after["lab/suite.jsonl"]


def test_replay_takes_prompts_and_conversations(tmp_path):
    rows(tmp_path, [SPELLINGS["alpaca"](i) for i in range(30)])
    rows(tmp_path, [{"prompt": "p"}, {"prompt": "r"}], "general.jsonl")
    text = "name: x\nmodel: lab-nano\nstages:\n  - method: sft\n    data: {source: rows.jsonl}\n"
    (tmp_path / "recipe.yaml").write_text(text + "    replay: {source: general.jsonl}\n")
    prepare(load_recipe(str(tmp_path / "recipe.yaml")), 0, tmp_path / "out")
    assert [row.prompt[0]["content"] for row in load_general(tmp_path / "out", "replay")] == ["p", "r"]
