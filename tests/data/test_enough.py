"""Held-out sets that are smaller than what a gated figure is defined on are told before the run, in figures and in words;
the gates are decided all the same."""

from __future__ import annotations

import argparse
import json
import random

import pytest

from engine.data.enough import few_held_out, half_width
from engine.data.foretold import foretold
from engine.data.inspect import inspect
from engine.data.prepare import prepare
from engine.evaluate.calibration import chance, ece
from engine.evaluate.gates import Limit, decide
from engine.evaluate.measurement import Measurement
from engine.runs.create import create_run
from recipes.load import load_recipe
from recipes.resources import assets_folder
from tui.commands.check import check

QUESTIONS = "    data: {source: lab/questions.jsonl, heldout: few.jsonl}"
ONLY_ANSWERED = "and only what is answered in the end counts"


def few(tmp_path, n, answered=True):
    """``n`` of the lab's held-out questions, with an answer or as they come."""
    rows = [json.loads(line) for line in (assets_folder() / "lab" / "data" / "questions-heldout.jsonl").open()]
    kept = [row for row in rows if row["answer"] is not None or not answered][:n]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))


def recipe(tmp_path, method="calibration", data=QUESTIONS, more=""):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: x\nmodel: lab-nano\nstages:\n  - method: {method}\n{data}\n{more}")
    return load_recipe(str(path))


def told(tmp_path, *recipe_words, **words):
    return prepare(recipe(tmp_path, *recipe_words, **words), 0, tmp_path / "out").warnings


# ---- the calibration error -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [20, 999])
def test_a_calibration_on_too_few_questions_says_n_the_wanted_n_and_what_it_means(tmp_path, n):
    few(tmp_path, n, answered=False)
    (said,) = told(tmp_path)
    assert said.startswith(f"{n} held-out questions: the gate `ece_cut` looks")
    assert "1000 or more" in said and f"{chance(n):.2f} by chance" in said and ONLY_ANSWERED not in said


def test_enough_questions_or_no_such_gate_say_nothing(tmp_path):
    few(tmp_path, 1000, answered=False)
    assert told(tmp_path) == []
    few(tmp_path, 50)
    assert told(tmp_path, more="    gates: {ece_cut: null}\n") == []
    (said,) = told(tmp_path, more="    gates: {ece: {max: 0.1}}\n")
    assert "the gates `ece` and `ece_cut` look" in said or "the gates `ece_cut` and `ece` look" in said


def test_of_a_model_that_learns_to_abstain_only_questions_with_an_answer_are_counted(tmp_path):
    few(tmp_path, 1026, answered=False)
    (said,) = told(tmp_path, "anti_hallucination")
    assert said.startswith("576 held-out questions with an answer, " + ONLY_ANSWERED)


def test_what_chance_alone_shows_is_what_a_perfect_calibration_measures():
    draw = random.Random(0)
    for n in (1, 20, 100, 1000):
        measured = [ece([0.5] * n, [draw.random() < 0.5 for _ in range(n)]) for _ in range(400)]
        assert sum(measured) / 400 == pytest.approx(chance(n), rel=0.05)
    assert chance(1000) < 0.05 < chance(900)


# ---- retention -------------------------------------------------------------------------------------------------------

PAIRS = "    data: {source: lab/preferences.jsonl}"


def test_a_suite_that_is_cut_short_is_told_where_a_gate_stands_on_it(tmp_path):
    few_rows = "    evaluation: {suite_n: 50}\n"
    (said,) = [one for one in told(tmp_path, "cpo", PAIRS, few_rows) if "suite" in one]
    assert said.startswith("50 rows of `") and "(`evaluation.suite_n: 50`)" in said and "5 of 5 tasks" in said
    assert "the gate `retention` looks" in said and "300 or more" in said and "± 13%" in said and "± 6%" in said
    assert not [one for one in told(tmp_path, "dpo", PAIRS, few_rows) if "suite" in one], "no gate, no target"
    assert not [one for one in told(tmp_path, "cpo", PAIRS, "    evaluation: {suite_n: 300}\n") if "suite" in one]


def test_a_suite_of_ones_own_names_its_smallest_task(tmp_path):
    row = {"prompt": "2 + 2", "answer": "4"}
    tasks = ["add"] * 300 + ["mine"] * 40 + ["other"] * 41
    (tmp_path / "suite.jsonl").write_text("".join(json.dumps({**row, "task": task}) + "\n" for task in tasks))
    (said,) = [one for one in told(tmp_path, "cpo", PAIRS, "suite: suite.jsonl\n") if "suite" in one]
    assert said.startswith("40 rows of `mine` in the capability suite: ") and "2 of 3 tasks have fewer" in said
    more = "    confirm_responsible_use: true\n    evaluation: {suite_n: 20}\n"
    (said,) = [one for one in told(tmp_path, "abliteration", "", more) if "suite" in one]
    assert "the gate `retention_worst` looks" in said


# ---- where it is said ------------------------------------------------------------------------------------------------


def test_check_and_the_runs_log_say_it_and_no_gate_fails_for_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FINETUNE_TUI_HOME", str(tmp_path / "home"))
    few(tmp_path, 20)
    loaded = recipe(tmp_path)
    wanted = "stage 1 data: 20 held-out questions"
    assert [one[: len(wanted)] for one in foretold(loaded)] == [wanted]
    options = argparse.Namespace(
        recipe=str(tmp_path / "recipe.yaml"), overrides=[], hardware="rtx-3090", quick=True, make_fit=False, output=None,
        json=False,
    )  # fmt: skip
    assert check(options) == 0 and wanted in capsys.readouterr().out
    alerts = create_run(loaded).run.state().alerts
    assert [(one.stage, one.code) for one in alerts if one.text.startswith("20 held-out questions")] == [(0, "data")]
    (result,), _ = decide({"ece_cut": Limit(0.3, None)}, {"ece_cut": Measurement("ece_cut", 0.5, 20)})
    assert result.passed and result.n == 20


def test_check_names_what_a_run_would_refuse_and_leaves_very_large_data_alone(tmp_path, monkeypatch):
    (tmp_path / "few.jsonl").write_text('{"prompt": "x", \n')
    (said,) = foretold(recipe(tmp_path))
    assert said.startswith("stage 1 data: ") and "few.jsonl" in said
    monkeypatch.setattr("engine.data.foretold.MOST_MIB", 0)
    (said,) = foretold(recipe(tmp_path))
    assert "not looked over here" in said


def test_a_look_at_the_data_says_it_where_method_and_held_out_rows_are_named(tmp_path):
    few(tmp_path, 40)
    data, heldout = assets_folder() / "lab" / "data" / "questions.jsonl", tmp_path / "few.jsonl"
    said = inspect(data, "calibration", heldout=heldout).warnings
    assert any(one.startswith("40 held-out questions: ") for one in said)
    assert not any("calibration error" in one for one in inspect(data, "sft", heldout=heldout).warnings)


def test_hardly_any_rows_are_told_with_how_far_a_share_of_them_is_known():
    assert (
        few_held_out(20) == [] and "± 35%" in few_held_out(4)[0] and "4 held-out pairs" in few_held_out(4, "pairs")[0]
    )
    assert half_width(1000) == pytest.approx(0.031, abs=5e-4)


@pytest.mark.parametrize(
    "name, stages",
    [
        *(
            (name, [])
            for name in ("sft", "dpo", "orpo", "grpo", "cpo", "rlvr", "abliteration", "steering", "calibration")
        ),
        *((name, []) for name in ("base-alignment", "customizable-assistant")),
        # Of the lab's 1026 held-out questions 576 have an answer; the others it is to leave unanswered.
        ("anti-hallucination", [1]),
        ("verifiable-reasoning", [3]),
        ("research-assistant", [5]),
    ],
)
def test_the_labs_recipes_have_what_the_definitions_ask_for_but_where_they_say_so(name, stages):
    assert [one.partition(":")[0] for one in foretold(load_recipe(name))] == [f"stage {index} data" for index in stages]
