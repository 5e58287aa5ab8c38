"""methods and choose as a user types them, in pipes and on a real terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest

from recipes.flowchart import paths
from recipes.load import library, load_recipe
from recipes.methods import cards, stage_types
from recipes.strategies import STRATEGIES
from tests.tui.test_cli import cli
from tui.commands.methods import command_words


def test_the_comparison_fits_its_tables():
    done = cli("methods")
    assert done.returncode == 0, done.stderr
    for word in (
        "Feature comparison",
        "Use cases",
        "Combined strategies",
        "RLVR",
        "~2.5 GB",
        "30-60 min",
        "SFT/LoRA + GRPO",
    ):
        assert word in done.stdout, word
    assert max(map(len, done.stdout.splitlines())) <= 120
    narrow = subprocess.run(
        [sys.executable, "-P", "-m", "tui.cli", "methods"], capture_output=True, text=True, timeout=60,
        env={**os.environ, "COLUMNS": "80"},
    )  # fmt: skip
    assert max(map(len, narrow.stdout.splitlines())) <= 110
    found = json.loads(cli("methods", "--json").stdout)
    assert set(found["methods"]) == set(cards()) and len(found["use_cases"]) == 8 and len(found["strategies"]) == 4


@pytest.mark.parametrize("name", cards())
def test_every_card_in_words(name, capsys):
    from tui.cli import main

    assert main(["methods", name.replace("_", "-")]) == 0
    said = " ".join(capsys.readouterr().out.split())  # long lines go on below in a narrow terminal
    card = cards()[name]
    assert card.title in said and all(text in said for text in (*card.strengths, *card.weaknesses, *card.targets))
    assert "finetune-tui run" in said or "cannot run" in said
    assert main(["methods", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"]["minimum"] == card.data.minimum


@pytest.mark.parametrize("name", [*cards(), *(strategy.name for strategy in STRATEGIES)])
def test_the_command_that_is_named_loads(name, tmp_path):
    """With a model and files in place of the capitals, the command's recipe is a valid one."""
    strategy = next((item for item in STRATEGIES if item.name == name), None)
    methods = [step.method for step in strategy.steps] if strategy else [name]
    command = command_words(name.replace("_", "-"), methods)
    if "cannot run" in command:
        recipe = library().get(name.replace("_", "-"))
        whole = recipe and set(methods) <= set(stage_types())
        assert not whole or [stage.method for stage in load_recipe(str(recipe)).recipe.stages] != methods
        return
    words = command.replace("MODEL", "lab-nano").replace("/PATH/TO/FILE", str(tmp_path / "rows.jsonl")).split()
    assert words[:2] == ["finetune-tui", "run"]
    loaded = load_recipe(words[2], [word for word in words[3:] if word != "--set"])
    assert [stage.method for stage in loaded.recipe.stages][-len(methods) :] == methods
    if len(words) > 3:
        assert loaded.recipe.model == "lab-nano" and "lab/" not in str([stage.data for stage in loaded.recipe.stages])


def test_a_method_that_is_none():
    done = cli("methods", "dpp")
    assert done.returncode == 2 and "Did you mean `dpo`?" in done.stderr


@pytest.mark.parametrize("way, leaf", list(paths()), ids=lambda value: getattr(value, "method", None))
def test_choosing_every_leaf(way, leaf, capsys):
    from tui.cli import main

    assert main(["choose", "--answers", ",".join(answer.key for answer in way), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["method"], found["because"], found["notice"]) == (leaf.method, leaf.because, leaf.notice)
    assert main(["choose", "--answers", ",".join(answer.text for answer in way[:1])]) in (0, 2)


@pytest.mark.parametrize(
    "answers, said",
    [
        ("preferenses", "Did you mean `preferences`?"), ("preferences", "one more: `available`, `constrained`"),
        ("knowledge,available", "had led to sft"), ("", "leave open: What is your goal?"),
    ],
)  # fmt: skip
def test_bad_answers(answers, said):
    done = cli("choose", "--answers", answers)
    assert done.returncode == 2 and said in done.stderr
    assert cli("choose").returncode == 2  # nobody to ask


def test_starting_from_a_use_case():
    done = cli("choose", "--use-case", "style alignment")
    assert done.returncode == 0 and "Style alignment: DPO (Prefer DPO if memory allows)" in done.stdout
    assert "alternative: ORPO" in done.stdout
    assert "Abliteration removes safety constraints" in cli("choose", "--use-case", "uncensored-model").stdout
    assert "Did you mean `math-tutoring`?" in cli("choose", "--use-case", "math-tutorin").stderr


def test_the_questions_on_a_terminal():
    """A real terminal: a bad word, why, back, and on to the leaf."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-P", "-m", "tui.cli", "choose"]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True)
    os.close(theirs)
    os.write(ours, b"verifyable\n?\nverifiable\nb\n2\nconstrained\n")
    said = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # the terminal is closed when the process has ended
            break
        if not chunk:
            break
        said += chunk
    os.close(ours)
    text = " ".join(said.decode().split())  # wherever the terminal wraps
    assert process.wait(30) == 0, text
    assert "did you mean `verifiable`?" in text and "Each method is good at one thing" in text
    assert "What can be verified?" in text and text.count("What is your goal?") >= 4
    assert "ORPO: simpler, lower memory" in text


def test_output_without_utf8():
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tui.cli", "methods"], capture_output=True, timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done.stdout.decode("ascii")
