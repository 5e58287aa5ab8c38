"""What a model's template and a verifier make of the rows: ends of replies, and whether answers can be told right from wrong."""

from __future__ import annotations

import json
import shutil

import pytest

from engine.data.endings import judge_endings, look_at_endings
from engine.data.inspect import inspect
from recipes.errors import InputError
from recipes.resources import resolve_model
from tui.cli import main

ROWS = [
    [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"It is {n}."}] for n in range(5)
]


@pytest.fixture
def model(tmp_path):
    """The lab's smallest model without weights, its files to be changed."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in resolve_model("lab-nano", tmp_path).iterdir():
        if file.suffix in (".json", ".jinja"):
            shutil.copyfile(file, folder / file.name)
    return folder


def change(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_a_template_that_ends_replies_is_fine(model):
    found = look_at_endings(str(model), ROWS)
    assert found.template and found.stops == ["<|end|>"] and (found.n, found.ended) == (5, 5)
    assert judge_endings(found) == []


def test_a_template_without_an_end_is_told(model):
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}")
    found = look_at_endings(str(model), ROWS)
    assert found.ended == 0 and "`<|end|>`) after the reply in 5 of 5 rows" in " ".join(judge_endings(found))


def test_a_model_that_names_no_end_is_told(model):
    for name in ("generation_config.json", "config.json", "tokenizer_config.json"):
        change(model / name, eos_token_id=None, eos_token=None)
    assert "names no end token" in " ".join(judge_endings(look_at_endings(str(model), ROWS)))


def test_an_end_that_the_vocabulary_does_not_have_is_none(model):
    for name in ("generation_config.json", "config.json", "tokenizer_config.json"):
        change(model / name, eos_token_id=999_999, eos_token="<|nowhere|>")
    assert look_at_endings(str(model), ROWS).stops == []


def test_a_model_without_a_template_and_one_that_refuses_are_told(model):
    template = model / "chat_template.jinja"
    template.write_text("{{ raise_exception('Conversation roles must alternate') }}")
    found = look_at_endings(str(model), ROWS)
    assert found.refused == 5 and "refuses 5 of 5 rows (Conversation roles must alternate)" in judge_endings(found)[0]
    template.unlink()
    found = look_at_endings(str(model), ROWS)
    assert not found.template and found.ended == 5 and "no chat template" in " ".join(judge_endings(found))


def test_rows_that_were_templated_before_are_told(model):
    rows = [[{"role": "user", "content": "What is 1?<|end|>"}, ROWS[0][1]], *ROWS]
    assert (
        "1 rows hold the template's own signs as text, such as `<|end|>`"
        in judge_endings(look_at_endings(str(model), rows))[0]
    )


# ---- verifiers ---------------------------------------------------------------------------------------------------------


def questions(path, answers):
    path.write_text("".join(json.dumps({"prompt": f"what is {n}", "answer": a}) + "\n" for n, a in enumerate(answers)))
    return path


def test_answers_that_a_verifier_can_tell_are_counted(tmp_path):
    found = inspect(questions(tmp_path / "a.jsonl", map(str, range(150))), "grpo", verifier={"kind": "number"})
    assert (found.verifiability.share, found.verifiability.n) == (1.0, 150) and not found.problems
    words = [str(n) if n % 2 else f"about {n} or so, I think, who knows" for n in range(150)]
    found = inspect(questions(tmp_path / "b.jsonl", words), "grpo", verifier={"kind": "exact"})
    assert found.verifiability.share == 1.0
    words = [str(n) if n % 2 else "a lot" for n in range(150)]
    found = inspect(questions(tmp_path / "c.jsonl", words), "grpo", verifier={"kind": "number"})
    assert found.verifiability.share == 0.5
    said = " ".join(found.warnings)
    assert "only 50% of the prompts are verifiable by `number` (n 150; more than 80% is wanted)" in said
    assert "such as `a lot`" in said and "not accepted" in said


def test_one_that_takes_wrong_answers_is_what_a_run_would_refuse(tmp_path):
    found = inspect(questions(tmp_path / "a.jsonl", ["yes"] * 120), "grpo", verifier={"kind": "regex", "pattern": ".*"})
    (problem,) = found.problems
    assert "takes 120 of 120 wrong ones for right, such as" in problem.found


def test_the_command_takes_a_kind_or_its_settings(tmp_path, capsys):
    path = str(questions(tmp_path / "a.jsonl", map(str, range(150))))
    assert main(["data", path, "--verifier", "number", "--model", "lab-nano"]) == 0
    out = capsys.readouterr().out
    assert (
        "verifiable   100% by `number` (n 150" in out and "ends         `<|end|>` after the reply in 150 of 150" in out
    )
    assert main(["data", path, "--verifier", "{kind: steps, split: lines}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verifiability"]["kind"] == "steps"
    for word, said in (("nmber", "Did you mean `number`?"), ("{kind: regex}", "regex"), ("{kind", "--verifier")):
        assert main(["data", path, "--verifier", word]) == 2
        assert said in capsys.readouterr().err


def test_a_bad_verifier_costs_no_crash(tmp_path):
    with pytest.raises(InputError):
        inspect(questions(tmp_path / "a.jsonl", ["1"]), verifier={"kind": "python", "path": "nowhere.py"})
