"""The guided way by keys: a first user's, a returning user's, every leaf; its screens as approved text."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest
import yaml

from engine.runs.directory import list_runs, runs_folder, status
from recipes.flowchart import QUESTIONS, Leaf, follow, paths
from recipes.flowchart import walk as follow_answers
from recipes.methods import cards
from recipes.strategies import STRATEGIES
from recipes.use_cases import USE_CASES
from tests.tui.driving import approved, text_of
from tests.tui.wizard_driving import TO_DATA, TO_FIT, TO_MODEL, TO_RECIPE, begun, drive, on_machine
from tui.wizard import keep


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    on_machine(monkeypatch)


def pairs(path, count=1200, **names):
    rows = [
        {"prompt": f"what is {n}", "chosen": f"a number, {n}", "rejected": f"no idea about {n}"} for n in range(count)
    ]
    path.write_text("".join(json.dumps({names.get(k, k): v for k, v in row.items()}) + "\n" for row in rows))
    return path


# ---- every leaf, use case and strategy ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "leaf"), [(way, leaf) for way, leaf in paths()], ids=lambda one: getattr(one, "method", "")
)
def test_every_leaf_is_reached_by_numbers_and_explained(way, leaf):
    steps, question = [], QUESTIONS["goal"]
    for one in way:
        there = follow(one)
        number = str(question.answers.index(one) + 1)
        steps.append((number, "It comes to this" if isinstance(there, Leaf) else there.text))
        question = there
    text = drive(("n", "What is your goal?"), *steps, size=(120, 60))
    card = cards()[leaf.method]
    for words in (card.title, *card.strengths, *card.weaknesses, "time", "memory", "targets"):
        assert words in text, words
    assert isinstance(follow_answers([one.key for one in way]), Leaf)


def test_abliteration_asks_and_takes_no_for_an_answer():
    begin = (("n", "What is your goal?"), ("5", "It comes to this"))
    no = drive(*begin, ("enter", "removes safety constraints"), ("enter", "It comes to this"))
    assert "[method]" in no, "the focus is on the answer that changes nothing"
    yes = drive(
        *begin, ("enter", "removes safety constraints"), ("y", "Which model?"), ("", "GiB ✓"), ("enter", "It fits")
    )
    assert "[fit]" in yes and keep.kept().confirmed


def test_a_use_case_leads_to_its_methods():
    steps = [("n", "What is your goal?"), ("u", "What do you want to build?")]
    seen = []
    for number in range(1, len(USE_CASES) + 1):
        steps += [(str(number), "For this use case"), ("", seen.append), ("escape", "What do you want to build?")]
    listed = drive(*steps)
    assert all(case.note in text for case, text in zip(USE_CASES, seen, strict=True))
    assert all(case.name in listed for case in USE_CASES) and "1  Domain adaptation" in listed


def test_a_combined_strategy_asks_for_each_stages_data():
    text = drive(
        ("n", "What is your goal?"), ("c", "Which combination?"), ("1", "Which model?"), ("", "GiB ✓"), ("enter", "stage 1 of 2"),
        ("", "Go on with these rows"), ("enter", "stage 2 of 2"), ("", "Go on with these rows"), ("enter", "It fits"),
    )  # fmt: skip
    assert "1. sft" in text and "2. dpo" in text
    listed = drive(("n", "What is your goal?"), ("c", "Which combination?"))
    assert all(one.title in listed for one in STRATEGIES)


def test_the_tables_are_a_key_away():
    text = drive(("n", "What is your goal?"), ("t", "Complexity and capability"), size=(120, 30))
    assert "High Complexity" in text and "RLVR ●" in text
    text = drive(("n", "What is your goal?"), ("t", "Complexity"), ("right", "Feature comparison"), size=(120, 40))
    assert "Reference" in text and "Steering" in text
    drive(("n", "What is your goal?"), ("t", "Complexity"), ("left", "Alternative"), ("escape", "What is your goal?"))


def test_why_each_page_is_there():
    seen = []
    steps = []
    for step in TO_RECIPE:
        steps += [step, ("f1", "Why this step"), ("", seen.append), "escape"] if step[0] != "" else [step]
    drive(*steps)
    assert len(seen) == 7 and all(len(text.split()) > 60 for text in seen)
    assert "Each method is good at one thing" in seen[0]


def test_the_memory_question_is_answered_by_the_forecast_and_can_be_overridden(monkeypatch):
    big = drive(*TO_MODEL[:2], *["right"] * 2, ("", "Llama-3.1-8B"))
    assert "High budget (memory available)   the forecast suggests this" in big
    on_machine(monkeypatch, "rtx-2060-6gb")
    small = drive(*TO_MODEL[:2], *["right"] * 3, ("", "microsoft/phi-4"), ("", "does not fit"))
    assert "Low budget (memory constrained)   the forecast suggests this" in small
    overridden = drive(*TO_MODEL[:2], ("2", "It comes to this: ORPO"))
    assert "ORPO" in overridden


# ---- the whole way of a first user, and of a returning one -------------------------------------------------------------


def test_a_first_user_comes_to_a_running_dpo(until):
    """From Home to a started run on the smallest lab model, by keys alone; the run is a real one."""

    def look(app):
        [run] = list_runs()
        return run, text_of(app)

    run, text = drive(*TO_MODEL, "type lab-nano", ("", "GiB ✓"), ("enter", "Go on with these rows"), ("enter", "It fits"),
                      ("enter", "✓ fits  "), ("enter", "running"), look=look)  # fmt: skip
    try:
        assert "dpo" in text and run.id in text
        until(lambda: status(run, run.state()) == "running", 60, "it runs")
        kept = yaml.safe_load(run.recipe.read_text())
        assert kept["model"] == "lab-nano" and kept["stages"][0]["data"]["source"] == "lab/preferences.jsonl"
        assert keep.kept() is None, "what was finished is not offered again"
    finally:
        from tui.steering import do

        do("stop", run)
        until(lambda: status(run, run.state()) not in ("running", "queued"), 120, "it ends")


def test_a_returning_user_resumes_with_two_keys(fake_run, monkeypatch, until):
    fake = fake_run(hold=1)
    process = fake.supervise()
    fake.wait_step(1)
    os.kill(fake.stage_pid(), signal.SIGKILL)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    until(lambda: fake.status() == "interrupted", 20, "nobody works on it")
    monkeypatch.setattr("engine.runs.launch.start_supervisor", lambda run, now=False: fake.supervise())
    text = drive(("r", "running"), ("enter", "step "), first="nothing is lost")
    assert fake.run.id in text
    fake.go()
    until(lambda: fake.status() == "done", 60, "it is done")


def test_the_cursor_begins_on_what_was_interrupted():
    from tests.tui.recording import in_the_middle, recorded_run

    recorded_run(until=in_the_middle, run_id="a-interrupted-run")
    recorded_run(run_id="b-done-run")
    assert "It was interrupted, and nothing is lost" in drive(first="a-interrupted-run")


# ---- nothing said is lost ----------------------------------------------------------------------------------------------


def test_a_way_that_was_left_goes_on_where_it_was():
    drive(*TO_DATA)
    assert keep.kept().page == "data"
    text = drive(("n", "A recipe was begun"), ("y", "Go on with these rows"))
    assert "[data]" in text
    text = drive(("n", "A recipe was begun"), ("n", "What is your goal?"))
    assert keep.kept() is None


def test_back_from_the_recipe_to_the_first_question_and_forth_again():
    text = drive(
        *TO_RECIPE, ("escape", "It fits"), ("escape", "Go on with these rows"), ("escape", "Which model?"),
        ("escape", "It comes to this"), ("escape", "suggests"), ("escape", "What is your goal?"), ("escape", "No runs yet"),
    )  # fmt: skip
    assert "No runs yet" in text


def test_a_killed_app_loses_nothing(tmp_path, home):
    """kill -9 in the middle of typing: the recipe as typed is there again."""
    code = """
import asyncio, os, signal
from tests.tui.wizard_driving import *
from tui.app import FinetuneApp
from tests.tui.driving import settled
import tui.machine_book as book
hardware = find_hardware("rtx-3090")
book.hardware = lambda: hardware
book.machine = lambda: MACHINE
import tui.app, tui.words
tui.words.unicode_terminal = tui.app.unicode_terminal = lambda: True
async def session():
    app = FinetuneApp()
    async with app.run_test(size=(80, 24)) as pilot:
        await settled(pilot, "No runs yet")
        await walk(pilot, *TO_RECIPE, "tab", "end", *"-mine", ("", "dpo-mine"))
        await pilot.pause(0.6)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(session())
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=120, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert "name: dpo-mine" in keep.kept().text
    assert "dpo-mine" in drive(("n", "A recipe was begun"), ("y", "✓ fits  "))


# ---- model -------------------------------------------------------------------------------------------------------------


def test_models_are_narrowed_by_typing_and_ones_own_are_found(tmp_path, monkeypatch):
    assert "microsoft/phi-4" in drive(*TO_MODEL, ("type phi-4", "microsoft/phi-4"))
    wrong = drive(*TO_MODEL, "type nosuchmodel", ("enter", "is no directory here and no hub id"))
    assert "[model]" in wrong
    folder = tmp_path / "own-model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    text = drive(*TO_MODEL, ("type ./own", "a model"), ("enter", "./own-model/"), ("enter", "pickled weights"))
    assert "[model]" in text
    (folder / "model.safetensors").write_bytes(b"")
    drive(*TO_MODEL, ("type ./own", "a model"), ("enter", "Which data?"))
    assert keep.kept().model == str(folder)


def test_the_hub_is_asked_only_when_asked_for(monkeypatch):
    from engine.models.hub_search import OnHub

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in drive(*TO_MODEL, "type tiny", ("f3", "not asked"))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    asked = []

    def search(words):
        asked.append(words)
        return [OnHub("someone/tiny-thing", 7, False), OnHub("someone/gated-tiny", 3, True)]

    monkeypatch.setattr("engine.models.hub_search.search", search)
    text = drive(*TO_MODEL, "type tiny", ("f3", "2 on the hub"), size=(120, 30))
    assert asked == ["tiny"] and "someone/tiny-thing" in text and "its terms must be accepted" in text
    monkeypatch.setattr("engine.models.hub_search.search", lambda words: (_ for _ in ()).throw(OSError("no route")))
    assert "no route" in drive(*TO_MODEL, "type tiny", ("f3", "cannot be asked"))


# ---- fit ---------------------------------------------------------------------------------------------------------------

BIG = "meta-llama/Llama-3.1-8B-Instruct"


def test_what_does_not_fit_is_made_to_fit_with_one_key(tmp_path):
    path = str(pairs(tmp_path / "pairs.jsonl"))
    seen = []
    text = drive(*begun("fit", BIG, path), ("", "does not fit"), ("", seen.append), ("b", "It fits"), size=(120, 40))
    for words in ("weights", "activations", "ORPO instead", "a smaller model", "costs"):
        assert words in seen[0], words
    assert "changed" in text
    stage = yaml.safe_load(keep.kept().text)["stages"][0]
    assert stage["method"] == "dpo" and stage["batch_size"] * stage["accumulation"] == 8


def test_starting_over_does_not_fit_needs_a_yes(tmp_path, monkeypatch):
    started = []

    def start(text, folder):
        started.append(text)
        raise RuntimeError("not here")

    monkeypatch.setattr("tui.steering.start_text", start)
    path = str(pairs(tmp_path / "pairs.jsonl"))
    begin = (*begun("recipe", BIG, path), ("f5", "Start it all the same?"))
    drive(*begin, ("enter", "does not fit  "))
    assert not started, "the focus is on the answer that starts nothing"
    drive(*begin, ("y", "not here"))
    assert len(started) == 1


# ---- the recipe --------------------------------------------------------------------------------------------------------


def test_form_and_yaml_are_one_thing_judged_as_one_types():
    """A bad value is told at once and mended at once; what the form changes the YAML shows, and the other way round."""
    text = drive(
        *begun(), "tab", *["down"] * 15, "end", ("type x", "stages.0.steps"), ("", "1 to mend before it can start"),
        ("backspace", "GiB of"), "type 0", ("f2", "steps: 1500"), "down", "down", "end", "enter",
        ("type oops: 1", "unknown field `oops`"), *["backspace"] * 8, ("", "GiB of"), ("f2", "batch_size"),
    )  # fmt: skip
    assert "1500" in text and "max_length" not in keep.kept().text.splitlines()[0]
    assert yaml.safe_load(keep.kept().text)["stages"][0]["steps"] == 1500


def test_choices_turn_with_the_arrow_keys():
    text = drive(*begun(), "tab", "down", "down", ("right", "none"), look=lambda app: app.screen.wizard.text)
    assert yaml.safe_load(text)["quantization"] == "none"


def test_the_recipe_is_saved_where_one_wants(tmp_path, monkeypatch, until):
    from recipes.load import load_recipe

    monkeypatch.chdir(tmp_path)
    file = tmp_path / "dpo.yaml"
    drive(
        *begun(), ("f4", "Save the recipe as"), ("enter", lambda text: until(file.exists)), ("f4", "Save the recipe as"),
        ("enter", "Write over it?"), ("n", "GiB of"),
    )  # fmt: skip
    assert load_recipe(str(file)).recipe == load_recipe("dpo").recipe


def test_a_refusal_at_the_start_is_shown_and_nothing_is_lost(monkeypatch):
    from tui.steering import Refused

    def refuse(text, folder):
        raise Refused("the disk is full: 0 bytes free")

    monkeypatch.setattr("tui.steering.start_text", refuse)
    text = drive(*begun(), ("enter", "the disk is full"))
    assert "[recipe]" in text and keep.kept().page == "recipe" and not runs_folder().exists()


# ---- how it looks ------------------------------------------------------------------------------------------------------

SIZES = {"80x24": (80, 24), "60x20": (60, 20), "160x48": (160, 48)}


@pytest.mark.parametrize("size", SIZES)
def test_the_way_looks_as_approved(size):
    """Every page of one walk, at this size."""
    seen = {}

    def note(name):
        return ("", lambda text: seen.setdefault(name, text))

    drive(
        ("n", "What is your goal?"), "down", note("question"), ("u", "What do you want to build?"), "down", note("cases"),
        ("escape", "What is your goal?"), ("c", "Which combination?"), "down", note("strategies"), ("escape", "What is your goal?"),
        *TO_MODEL[1:2], note("memory"), *TO_MODEL[2:3], note("method"), *TO_MODEL[3:4], ("", "GiB ✓"), note("model"),
        *TO_DATA[-1:], note("data"), *TO_FIT[-1:], note("fit"), *TO_RECIPE[-1:], note("recipe"), size=SIZES[size],
    )  # fmt: skip
    assert len(seen) == 9
    for name, text in seen.items():
        approved(f"wizard-{name}-{size}", text)


def test_without_colour_every_sign_still_says_it(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")

    def look(app):
        return text_of(app), app.export_screenshot()

    text, picture = drive(*TO_DATA, look=look)
    approved("wizard-data-80x24", text)
    colours = {tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in re.findall(r"fill: (#[0-9a-fA-F]{6})", picture)}
    assert colours and all(max(one) - min(one) <= 24 for one in colours), "grey only"


def test_in_ascii(monkeypatch):
    monkeypatch.setenv("FINETUNE_TUI_ASCII", "1")
    plain = [("" if key == "" else key, text.replace("✓", "+") if text else text) for key, text in TO_FIT]
    text = drive(*plain)
    ours = "\n".join(
        line for line in text.splitlines() if "palette" not in line and "━" not in line and "──" not in line
    )
    assert ours.replace("▄", "").replace("▁", "").replace("▃", "").isascii(), ours


def test_resizing_loses_nothing():
    import asyncio

    from tests.tui.driving import at_rest, settled
    from tests.tui.wizard_driving import walk
    from tui.app import FinetuneApp

    async def session():
        app = FinetuneApp()
        async with app.run_test(size=(80, 24)) as pilot:
            await settled(pilot, "No runs yet")
            await walk(pilot, *TO_DATA)
            before, seen = await at_rest(pilot), set()
            for size in ((60, 20), (200, 60), (30, 10), (80, 24)):
                await pilot.resize_terminal(*size)
                after = await at_rest(pilot)
                seen.add(after)
            return before, after, len(seen)

    before, after, sizes = asyncio.run(session())
    assert before == after and sizes == 4


# ---- what it costs -----------------------------------------------------------------------------------------------------


def test_home_loads_nothing_of_the_way_before_it_is_asked_for():
    code = "import sys, tui.app, tui.screens.home; print(*(m for m in sys.modules if m in ('pydantic', 'recipes', 'yaml') or m.startswith(('tui.wizard', 'tui.screens.wizard', 'engine.data', 'engine.forecast'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [], done.stdout
