"""What a row says of steps reaches the verifier's reference, and where it says nothing that is said before the run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.data.formats import Question
from engine.data.inspect import inspect
from engine.data.prepare import load_rows, prepare
from engine.data.worked import counted, required_steps, with_steps, worked_steps
from engine.runs.create import create_run
from engine.verify.references import Reference, reference
from engine.verify.steps import Steps
from recipes.errors import InputError
from recipes.load import load_recipe
from recipes.resources import assets_folder
from tui.cli import main

PROMPT = "Anna has {n} apples, gives away 3 and doubles the rest. How many has she after she eats 6?"
TRIVIAL = "12 - 3 = 9; answer 5."


def row(n=12, **columns):
    worked = [f"{n} - 3 = {n - 3}", f"{n - 3} * 2 = {2 * n - 6}", f"{2 * n - 6} - 6 = {2 * n - 12}"]
    return {"prompt": PROMPT.format(n=n), "answer": str(2 * n - 12), "steps": worked} | columns


def write(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def recipe(tmp_path, method="rlvr", data="", more="") -> Path:
    text = f"name: x\nmodel: lab-nano\nstages:\n  - method: {method}\n    data: {{source: rows.jsonl{data}}}\n{more}"
    (tmp_path / "recipe.yaml").write_text(text)
    return tmp_path / "recipe.yaml"


def prepared(tmp_path, rows, **options):
    """(what was found, the questions) of one stage on those rows."""
    write(tmp_path / "rows.jsonl", rows)
    loaded = load_recipe(str(recipe(tmp_path, **options)))
    found = prepare(loaded, 0, tmp_path / "out")
    return found, [*load_rows(tmp_path / "out" / "train.jsonl"), *load_rows(tmp_path / "out" / "heldout.jsonl")]


def score(question, completion):
    verdict = Steps().verify([question.prompt[-1]["content"]], [completion], [question.answer])[0]
    return verdict.components["steps"]


WORKED = ("12 - 3 = 9", "9 * 2 = 18", "18 - 6 = 12")
SPELLINGS = {
    "a list": ({}, Reference("12", 3, WORKED)),
    "a list as JSON, as tables have it": ({"steps": json.dumps(list(WORKED))}, Reference("12", 3, WORKED)),
    "lines": ({"steps": "\n".join(WORKED) + "\n#### 12"}, Reference("12", 3, WORKED)),
    "numbered lines": ({"steps": "1. 12 - 3 = 9\n2. 9 * 2 = 18\n3. 18 - 6 = 12\nThe answer is 12"}, Reference("12", 3, WORKED)),
    "their number": ({"steps": None, "required": 3}, Reference("12", 3)),
    "their number, as tables have it": ({"steps": "", "required": "3.0"}, Reference("12", 3)),
    "both": ({"required": 2}, Reference("12", 2, WORKED)),
    "in the answer": ({"steps": None, "answer": '{"answer": 12, "required": 3}'}, Reference("12", 3)),
    "worked in the answer": ({"steps": None, "answer": json.dumps({"answer": 12, "steps": WORKED})}, Reference("12", 3, WORKED)),
    "words beside the equations": ({"steps": ["So 12 - 3 = 9 are left.", "She doubles them: 9 * 2 = 18.", "Hm."]},
                                   Reference("12", 2, ("So 12 - 3 = 9 are left.", "She doubles them: 9 * 2 = 18.", "Hm."))),
    "no equation": ({"steps": ["Subtract.", "Double."]}, Reference("12", 2, ("Subtract.", "Double."))),
    "nothing": ({"steps": []}, Reference("12")),
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_what_a_row_says_is_in_the_reference(spelling, tmp_path):
    columns, wanted = SPELLINGS[spelling]
    _, questions = prepared(tmp_path, [row(**columns), row(14, **columns)])
    one = next(one for one in questions if "12 apples" in one.prompt[0]["content"])
    assert reference(one.answer) == wanted
    assert score(one, TRIVIAL) == (1.0 if wanted.required is None else pytest.approx(1 / wanted.required))


def test_a_column_of_another_name_is_named(tmp_path):
    rows = [{"q": PROMPT.format(n=n), "answer": "1", "chain": row(n)["steps"], "k": 3} for n in range(10, 20)]
    _, questions = prepared(tmp_path, rows, data=", columns: {prompt: q, steps: chain}")
    assert all(reference(one.answer).required == 3 and reference(one.answer).steps for one in questions)
    _, questions = prepared(tmp_path, rows, data=", columns: {prompt: q, required: k}")
    assert all(reference(one.answer) == Reference("1", 3) for one in questions)


@pytest.mark.parametrize(
    "columns, field, found",
    [({"steps": 3}, "steps", "int"), ({"steps": [{"text": "12 - 3 = 9"}]}, "steps", "dict in the list"), ({"required": 0}, "required", "`0`"),
     ({"required": True}, "required", "`True`"), ({"required": "three"}, "required", "`three`"), ({"required": 2.5}, "required", "`2.5`")],
)  # fmt: skip
def test_what_cannot_be_read_is_named_for_rlvr_alone(columns, field, found, tmp_path, capsys):
    rows = [row(n) for n in range(10, 20)] + [row(**columns)]
    with pytest.raises(InputError) as caught:
        prepared(tmp_path, rows)
    (problem,) = caught.value.problems
    assert (problem.line, problem.field) == (11, field) and found in problem.found
    assert main(["data", str(tmp_path / "rows.jsonl"), "--method", "rlvr"]) == 2
    assert f"line 11: `{field}`" in capsys.readouterr().err
    grpo, questions = prepared(tmp_path, rows, method="grpo")
    assert all(one.answer.isdigit() for one in questions)
    assert main(["data", str(tmp_path / "rows.jsonl"), "--method", "grpo"]) == 0


def test_the_same_question_is_one_however_it_is_worked(tmp_path):
    rows = [row(n) for n in range(10, 40)]
    found, questions = prepared(tmp_path, [*rows, row(10, steps="19 - 7 = 12")])
    assert "1 rows occur more than once" in " ".join(found.warnings)
    assert sum("has 10 apples" in one.prompt[0]["content"] for one in questions) == 1
    write(tmp_path / "held.jsonl", [row(10, steps=None, required=3)])
    with pytest.raises(InputError, match="1 of 1 rows that are in `rows.jsonl` too"):
        prepared(tmp_path, rows, data=", heldout: held.jsonl")


# ---- where nothing says it -------------------------------------------------------------------------------------------


def test_run_check_and_data_say_the_same_of_rows_that_do_not_say_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FINETUNE_TUI_HOME", str(tmp_path / "home"))
    said = "40 of 60 rows do not say how many steps a solution needs"
    rows = [row(n) for n in range(10, 30)] + [row(n, steps=None) for n in range(30, 70)]
    path = write(tmp_path / "rows.jsonl", rows)
    created = create_run(load_recipe(str(recipe(tmp_path))))
    warning = next(one for one in created.prepared[0].warnings if "steps" in one)
    assert said in warning and "`rows.jsonl`" in warning and "`required`" in warning and "columns:" in warning
    alerts = [json.loads(line) for line in created.run.events.read_text().splitlines()]
    assert any(one.get("text") == warning for one in alerts)
    assert main(["check", str(tmp_path / "recipe.yaml"), "--quick"]) in (0, 4)
    assert f"stage 1 data: {warning}" in capsys.readouterr().out
    served = next(one for one in inspect(path, "rlvr").serves if one.method == "rlvr")
    assert served.verdict == "thin" and warning.partition(": ")[2] in served.why
    assert main(["data", str(path), "--method", "rlvr"]) == 0
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    "rows, options",
    [
        ([row(n) for n in range(10, 70)], {}),
        (
            [{"prompt": f"Start with {n}. Add 2. Double it.", "answer": str(2 * n + 4)} for n in range(60)],
            {},
        ),  # read off
        ([row(n, steps=None) for n in range(10, 70)], {"method": "grpo"}),
        ([row(n, steps=None) for n in range(10, 70)], {"more": "    verifier: {kind: custom-steps, path: mine.py}\n"}),
    ],
)
def test_nothing_is_said_where_it_is_known_or_not_asked(rows, options, tmp_path):
    said = "{'answer': 0.0, 'steps': [], 'required': 2}"
    (tmp_path / "mine.py").write_text(f"def steps(prompt, completion, answer):\n    return {said}\n")
    found, _ = prepared(tmp_path, rows, **options)
    assert not any("how many steps" in one for one in found.warnings)


def test_data_tries_the_verifier_on_the_worked_steps(tmp_path):
    rows = [row(n) for n in range(10, 60)]
    found = inspect(write(tmp_path / "a.jsonl", rows), "rlvr", verifier={"kind": "steps"})
    assert found.verifiability.share == 1.0 and not found.problems
    assert not any("worked" in one for one in found.warnings)
    wrong = [row(n, steps=[f"{n} - 3 = {n}"]) for n in range(10, 60)]
    found = inspect(write(tmp_path / "b.jsonl", wrong), "rlvr", verifier={"kind": "steps"})
    assert any("in 0 of 50 worked solutions" in one and "is not accepted" in one for one in found.warnings)


# ---- the lab -----------------------------------------------------------------------------------------------------------


def test_the_lab_s_rewards_are_what_they_were(tmp_path):
    """With and without its columns; the digest was made before `steps` and `required` were read."""
    import hashlib
    import random

    draw, plain, told = random.Random(7), [], []
    prompts, texts = [], []
    for name in ("chains", "chains-heldout"):
        for line in (assets_folder() / "lab" / "data" / f"{name}.jsonl").read_text().splitlines():
            one = json.loads(line)
            question = with_steps(Question([{"role": "user", "content": one["prompt"]}], one["answer"]), one, name, 1)
            assert reference(question.answer) == Reference(one["answer"], one["required"], tuple(one["steps"]))
            for kind in range(4):  # right, one result wrong, one step alone, one step twice
                steps = list(one["steps"])
                if kind == 1:
                    steps[draw.randrange(len(steps))] += "1"
                elif kind == 2:
                    steps = steps[:1]
                elif kind == 3:
                    steps.insert(draw.randrange(len(steps) + 1), draw.choice(steps))
                prompts.append(one["prompt"])
                texts.append("; ".join(steps) + f"; answer {one['answer']}.")
                plain.append(one["answer"])
                told.append(question.answer)
    for answers in (plain, told):
        verifier = Steps(split="semicolons")
        verdicts = [[one.reward, round(one.components["steps"], 6)] for one in verifier.verify(prompts, texts, answers)]
        steps = [[(s.end, s.accepted, s.required) for s in one] for one in verifier.steps(prompts, texts, answers)]
        digest = hashlib.sha256((json.dumps(verdicts) + json.dumps(steps)).encode()).hexdigest()
        assert digest == "51a50243755522b9ad6bf77662fd60a8242a0c349d152aabb5be01c6e5e48105"


@pytest.mark.parametrize(
    "value, steps",
    [(None, ()), (float("nan"), ()), ("", ()), ([], ()), (["a", " "], ("a",)), ("12 - 3 = 9", ("12 - 3 = 9",))],
)
def test_steps_are_read(value, steps):
    assert worked_steps(value, "", 1) == steps


def test_numbers_and_counts_are_read():
    values = (3, 3.0, "3", None, "", float("nan"))
    assert [required_steps(value, "", 1) for value in values] == [3, 3, 3, None, None, None]
    assert counted(("12 - 3 = 9 and 9 * 2 = 18",)) == 2 and counted(("2x = 4", "x = 2"), algebra=True) == 2
    assert counted(("a", "b")) == 2 and counted(()) == 0
