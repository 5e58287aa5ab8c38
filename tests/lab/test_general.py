"""The prompts and the suite for models that are not the lab's."""

from __future__ import annotations

import json
from collections import Counter

from assets.general import build
from recipes.resources import assets_folder

GENERAL = assets_folder() / "general"


def rows(name):
    return [json.loads(line) for line in (GENERAL / name).read_text().splitlines()]


def test_the_files_are_what_the_script_writes(tmp_path):
    build.write(tmp_path)
    for name in ("general.jsonl", "suite.jsonl"):
        assert (tmp_path / name).read_bytes() == (GENERAL / name).read_bytes()


def test_the_suite_has_five_tasks_of_three_hundred_different_questions():
    suite = rows("suite.jsonl")
    assert set(Counter(row["task"] for row in suite).values()) == {300} and len({row["task"] for row in suite}) == 5
    assert len({row["prompt"] for row in suite}) == len(suite)


def test_replay_has_enough_prompts_and_none_of_the_suites():
    prompts = {row["prompt"] for row in rows("general.jsonl")}
    assert len(prompts) >= 300
    assert prompts.isdisjoint({row["prompt"] for row in rows("suite.jsonl")})
