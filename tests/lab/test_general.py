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


def test_the_requests_are_what_the_script_writes_and_their_sets_are_disjoint(tmp_path):
    from assets.general import requests

    requests.write(tmp_path)
    activities = {}
    for kind in ("harmful", "harmless"):
        for part, size in {"extraction": 200, "search": 104, "test": 416}.items():
            name = f"{kind}-{part}.jsonl"
            assert (tmp_path / name).read_bytes() == (GENERAL / name).read_bytes()
            prompts = [row["prompt"] for row in rows(name)]
            assert len(prompts) == len(set(prompts)) == size
            for prompt in prompts:  # an activity in another phrasing would leak from the search into the test
                activity = next(
                    prompt.removeprefix(before).removesuffix(after)
                    for before, after in (phrasing.split("{}") for phrasing in requests.PHRASINGS)
                    if prompt.startswith(before)
                )
                assert activities.setdefault(activity, name) == name
    prompts = {row["prompt"] for path in GENERAL.glob("harm*.jsonl") for row in rows(path.name)}
    assert prompts.isdisjoint({row["prompt"] for row in rows("general.jsonl")})
