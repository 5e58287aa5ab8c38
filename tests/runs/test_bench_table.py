"""The table of many seeds (tests/bench/recipes.py) from runs on paper: what is there is tabled, and never run again."""

from __future__ import annotations

import json

import pytest

from engine.runs.events import GateEvent, RunEvent, StageEvent
from engine.runs.log import EventLog
from tests.bench import recipes, runs


@pytest.fixture
def folder(tmp_path):
    for seed, (kl, code) in enumerate([(0.03, 0), (0.05, 0), (0.12, 3)]):
        run = tmp_path / f"dpo-{seed}" / "runs" / f"dpo-2026-{seed}"
        run.mkdir(parents=True)
        log = EventLog(run / "events.jsonl")
        stage = {"method": "dpo", "steps": 9, "gates": {"kl": [None, 0.1]}}
        log.append(RunEvent(state="created", detail={"name": "dpo", "stages": [stage]}))
        log.append(StageEvent(stage=0, state="started", method="dpo", steps_total=9))
        log.append(GateEvent(stage=0, name="kl", value=kl, min=None, max=0.1, passed=kl <= 0.1, n=400, step=9))
        log.append(RunEvent(state="done", code=code))
        log.close()
        (tmp_path / f"dpo-{seed}" / "rates.jsonl").write_text(json.dumps({"s": 120.0, "cpu": 60.0}) + "\n")
    return tmp_path


def test_seeds_are_tabled_with_mean_and_range_and_what_missed(folder, monkeypatch, capsys):
    def must_not_run(*_, **__):
        raise AssertionError("what came to its end is not run again")

    monkeypatch.setattr(runs.subprocess, "run", must_not_run)
    monkeypatch.setattr("sys.argv", ["recipes", "dpo", "--seeds", "3", "--home", str(folder)])
    recipes.main()
    row = capsys.readouterr().out.splitlines()[-1]
    assert row == (
        "| `dpo` (seeds: 3), dpo | kl ≤ 0.1 | 0.067 (0.030 to 0.120), n 400, **missed in 1 of 3** | 0, 0, 3 "
        "| 1.0 min CPU, 2.0 wall |"
    )


def test_a_recipe_that_is_none_is_said(folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["recipes", "dpp", "--home", str(folder)])
    with pytest.raises(SystemExit):
        recipes.main()
    assert "dpp" in capsys.readouterr().err
