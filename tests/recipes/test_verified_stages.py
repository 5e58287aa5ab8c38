"""Recipes of the methods with verified rewards, and of those that train nothing: what is accepted, and what is said."""

from __future__ import annotations

import pytest

from engine.data.verifier_files import kept_spec, named_files
from recipes.errors import InputError
from recipes.load import load_recipe

HEAD = "name: mine\nmodel: lab\nstages:\n"


def load(tmp_path, body):
    path = tmp_path / "recipe.yaml"
    path.write_text(HEAD + body)
    return load_recipe(str(path)).recipe.stages[0]


def test_groups_must_be_whole(tmp_path):
    body = "  - method: grpo\n    data: {source: lab/chains.jsonl}\n    batch_size: 12\n    group_size: 8\n"
    with pytest.raises(InputError) as caught:
        load(tmp_path, body)
    assert "multiple of the group_size 8" in str(caught.value.problems[0])
    assert load(tmp_path, body + "    accumulation: 2\n").accumulation == 2


def test_the_verifier_is_a_number_by_default_and_rlvr_wants_steps(tmp_path):
    assert load(tmp_path, "  - method: grpo\n    data: {source: lab/chains.jsonl}\n").verifier.kind == "number"
    assert load(tmp_path, "  - method: rlvr\n    data: {source: lab/chains.jsonl}\n").verifier.kind == "steps"
    with pytest.raises(InputError) as caught:
        load(tmp_path, "  - method: rlvr\n    data: {source: lab/chains.jsonl}\n    verifier: {kind: number}\n")
    assert "steps" in str(caught.value.problems[0])


def test_a_stage_that_trains_nothing_has_no_knobs_of_training(tmp_path):
    assert load(tmp_path, "  - method: calibration\n    data: {source: lab/questions.jsonl}\n").by == "auto"
    with pytest.raises(InputError) as caught:
        load(tmp_path, "  - method: calibration\n    data: {source: lab/questions.jsonl}\n    learning_rate: 0.1\n")
    assert "learning_rate" in str(caught.value.problems[0])


def test_a_verifiers_files_are_found_and_renamed_apart():
    spec = {
        "kind": "sum",
        "components": [
            {"verifier": {"kind": "python", "path": "a/mine.py"}, "weight": 1.0},
            {"verifier": {"kind": "python", "path": "b/mine.py"}, "weight": 1.0},
            {"verifier": {"kind": "json", "json_schema": {"type": "object"}}, "weight": 1.0},
        ],
    }
    assert [path for _, path in named_files(spec)] == ["a/mine.py", "b/mine.py"]
    kept = [part["verifier"].get("path") for part in kept_spec(spec)["components"]]
    assert kept[0].endswith("-mine.py") and kept[0] != kept[1] and kept[2] is None
