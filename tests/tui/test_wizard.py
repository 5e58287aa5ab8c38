"""The guided way by keys: a first user's, a returning user's, every leaf; its screens as approved text."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading

import pytest
import yaml

from engine.runs.directory import runs_folder
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


def test_every_leaf_is_reached_by_numbers_and_explained():
    """In one walk: down each way, and back up to the first question."""
    steps, seen = [("n", "What is your goal?")], []
    for way, _ in paths():
        questions = [QUESTIONS["goal"]]
        for one in way:
            there = follow(one)
            number = str(questions[-1].answers.index(one) + 1)
            steps.append((number, "It comes to this" if isinstance(there, Leaf) else there.text))
            questions.append(there)
        steps += [("", seen.append), *(("escape", question.text) for question in questions[-2::-1])]
    drive(*steps, size=(120, 60))
    for (way, leaf), text in zip(paths(), seen, strict=True):
        card = cards()[leaf.method]
        for words in (card.title, *card.strengths, *card.weaknesses, "time", "memory", "targets"):
            assert words in text, (leaf.method, words)
        assert isinstance(follow_answers([one.key for one in way]), Leaf)


def test_abliteration_asks_and_takes_no_for_an_answer():
    no = []
    yes = drive(
        ("n", "What is your goal?"), ("5", "It comes to this"), ("enter", "removes safety constraints"),
        ("enter", "It comes to this"), ("", no.append), ("enter", "removes safety constraints"), ("y", "Which model?"),
        ("", "GiB ✓"), ("enter", "It fits"),
    )  # fmt: skip
    assert "[method]" in no[0], "the focus is on the answer that changes nothing"
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
    listed = []
    text = drive(
        ("n", "What is your goal?"), ("c", "Which combination?"), ("", listed.append), ("1", "Which model?"), ("", "GiB ✓"),
        ("enter", "stage 1 of 2"), ("", "Go on with these rows"), ("enter", "stage 2 of 2"), ("", "Go on with these rows"),
        ("enter", "It fits"),
    )  # fmt: skip
    assert "1. sft" in text and "2. dpo" in text
    assert all(one.title in listed[0] for one in STRATEGIES)


def test_the_tables_are_a_key_away():
    seen = []
    drive(
        ("n", "What is your goal?"), ("t", "Complexity and capability"), ("", seen.append), ("right", "Feature comparison"),
        ("", seen.append), ("left", "Complexity"), ("left", "Alternative"), ("escape", "What is your goal?"), size=(120, 40),
    )  # fmt: skip
    assert "High Complexity" in seen[0] and "RLVR ●" in seen[0]
    assert "Reference" in seen[1] and "Steering" in seen[1]


def test_the_memory_question_is_answered_by_the_forecast_and_can_be_overridden(monkeypatch):
    big = []
    overridden = drive(
        *TO_MODEL[:2], *["right"] * 2, ("", "Llama-3.1-8B"), ("", big.append), ("2", "It comes to this: ORPO")
    )
    assert "High budget (memory available)   the forecast suggests this" in big[0]
    assert "ORPO" in overridden
    on_machine(monkeypatch, "rtx-2060-6gb")
    small = drive(*TO_MODEL[:2], *["right"] * 3, ("", "microsoft/phi-4"), ("", "does not fit"))
    assert "Low budget (memory constrained)   the forecast suggests this" in small


# ---- of a first user (to a running run: test_first_evening.py), and of a returning one ---------------------------------


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
    pages = []
    drive(
        ("n", "A recipe was begun"), ("y", "Go on with these rows"), ("", pages.append), ("f9", "No runs yet"),
        ("n", "A recipe was begun"), ("n", "What is your goal?"),
    )  # fmt: skip
    assert "[data]" in pages[0]
    assert keep.kept() is None


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
        await walk(pilot, *begun(), "tab", "end", ("type -mine", "dpo-mine"))
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
    folder = tmp_path / "own-model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    seen = []

    def mended(text):
        seen.append(text)
        (folder / "model.safetensors").write_bytes(b"")

    drive(
        *TO_MODEL, ("type phi-4", "microsoft/phi-4"), ("ctrl+u", "lab-nano"), "type nosuchmodel",
        ("enter", "is no directory here and no hub id"), ("", seen.append), "ctrl+u", ("type ./own", "a model"),
        ("enter", "./own-model/"), ("enter", "pickled weights"), ("", mended), ("enter", "Which data?"),
        ("", lambda text: seen.append(keep.kept().model)), ("escape", "Enter names it"),
        ("escape", "Which model?"), "ctrl+u", ("type lab-nano", "GiB ✓"), ("enter", "Go on with these rows"),
    )  # fmt: skip
    assert all("[model]" in text for text in seen[:2])
    assert seen[2] == str(folder) and keep.kept().model == "lab-nano"


def test_the_hub_is_asked_only_when_asked_for(monkeypatch):
    from engine.models.hub_search import OnHub

    asked, seen = [], []

    def search(words):
        asked.append(words)
        if len(asked) > 1:
            raise OSError("no route")
        return [OnHub("someone/tiny-thing", 7, False), OnHub("someone/gated-tiny", 3, True)]

    def online(text):
        seen.append(text)
        monkeypatch.delenv("HF_HUB_OFFLINE")

    monkeypatch.setattr("engine.models.hub_search.search", search)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    last = drive(
        *TO_MODEL, "type tiny", ("f3", "not asked"), ("", online), ("f3", "2 on the hub"), ("", seen.append),
        ("f3", "cannot be asked"), size=(120, 30),
    )  # fmt: skip
    assert "HF_HUB_OFFLINE" in seen[0]
    assert asked == ["tiny"] * 2 and "someone/tiny-thing" in seen[1] and "its terms must be accepted" in seen[1]
    assert "no route" in last


# ---- fit ---------------------------------------------------------------------------------------------------------------

BIG = "meta-llama/Llama-3.1-8B-Instruct"


def test_what_does_not_fit_is_made_to_fit_with_one_key(tmp_path, monkeypatch):
    """What the helper traces is tests/forecast/test_trace.py's; here its answers are at hand, and the screen shows them."""
    seen, shown = [], threading.Event()

    def ask(description, timeout):
        if not description["settings"]["gradient_checkpointing"]:
            return {"error": "an answer of the tests"}
        assert shown.wait(timeout)
        return {"allocated_mib": 16_000.0, "reserved_mib": 17_000.0}

    monkeypatch.setattr("engine.forecast.tracer.TRACER.ask", ask)
    path = str(pairs(tmp_path / "pairs.jsonl"))
    text = drive(
        *begun("fit", BIG, path), ("", "not traced: an answer of the tests"), ("", seen.append), ("b", "It fits"),
        ("", "by arithmetic, being traced"), shown.set, ("", "by trace"), size=(120, 40),
    )  # fmt: skip
    assert "does not fit" in seen[0]
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

    def none(text):
        assert not started, "the focus is on the answer that starts nothing"

    monkeypatch.setattr("tui.steering.start_text", start)
    path = str(pairs(tmp_path / "pairs.jsonl"))
    drive(
        *begun("recipe", BIG, path), ("f5", "Start it all the same?"), ("enter", "does not fit  "), ("", none),
        ("f5", "Start it all the same?"), ("y", "not here"),
    )  # fmt: skip
    assert len(started) == 1


# ---- the recipe --------------------------------------------------------------------------------------------------------


def test_form_and_yaml_are_one_thing_judged_as_one_types():
    """A bad value is told at once and mended at once; what the form changes the YAML shows, and the other way round."""
    text = drive(
        *begun(), "tab", *["down"] * 17, "end", ("type x", "stages.0.steps"), ("", "1 to mend before it can start"),
        ("backspace", "GiB of"), "type 0", ("f2", "steps: 1500"), "down", "down", "end", "enter",
        ("type oops: 1", "unknown field `oops`"), *["backspace"] * 8, ("", "GiB of"), ("f2", "data.limit"),
    )  # fmt: skip
    assert "1500" in text and "max_length" not in keep.kept().text.splitlines()[0]
    assert yaml.safe_load(keep.kept().text)["stages"][0]["steps"] == 1500


def test_choices_turn_with_the_arrow_keys_and_the_recipe_is_saved_where_one_wants(tmp_path, monkeypatch, until):
    from recipes.load import load_recipe

    monkeypatch.chdir(tmp_path)
    file = tmp_path / "dpo.yaml"
    text = drive(
        *begun(), ("f4", "Save the recipe as"), ("enter", lambda text: until(file.exists)), ("f4", "Save the recipe as"),
        ("enter", "Write over it?"), ("n", "GiB of"), "tab", "down", "down", ("right", "none"),
        look=lambda app: app.screen.wizard.text,
    )  # fmt: skip
    assert load_recipe(str(file)).recipe == load_recipe("dpo").recipe
    assert yaml.safe_load(text)["quantization"] == "none"


def test_a_refusal_at_the_start_is_shown_and_nothing_is_lost(monkeypatch):
    from tui.steering import Refused

    def refuse(text, folder):
        raise Refused("the disk is full: 0 bytes free")

    monkeypatch.setattr("tui.steering.start_text", refuse)
    text = drive(*begun(), ("enter", "the disk is full"))
    assert "[recipe]" in text and keep.kept().page == "recipe" and not runs_folder().exists()


# ---- how it looks ------------------------------------------------------------------------------------------------------

SIZES = {"60x20": (60, 20), "160x48": (160, 48), "80x24": (80, 24)}


def test_the_whole_way_looks_as_approved_at_every_size_says_why_and_leads_back():
    """One walk. Every page is looked at in three sizes of the terminal and again in the first, and has its reason; then all
    the way back."""
    seen, again, reasons = {}, {}, []

    def look(name):
        steps = [("", lambda text: again.setdefault(name, text))]
        for size, given in SIZES.items():
            steps += [given, ("", lambda text, size=size: seen.setdefault((name, size), text))]
        return steps

    def page(name):
        return (*look(name), ("f1", "Why this step"), ("", reasons.append), "escape")

    drive(
        ("n", "What is your goal?"), "down", *page("question"), ("u", "What do you want to build?"), "down", *look("cases"),
        ("escape", "What is your goal?"), ("c", "Which combination?"), "down", *look("strategies"), ("escape", "What is your goal?"),
        *TO_MODEL[1:2], *page("memory"), *TO_MODEL[2:3], *page("method"), *TO_MODEL[3:4], ("", "GiB ✓"), *page("model"),
        *TO_DATA[-1:], *page("data"), (200, 60), (30, 10), (80, 24), ("", lambda text: again.setdefault("data, much larger and smaller", text)),
        *TO_FIT[-1:], *page("fit"), *TO_RECIPE[-1:], *page("recipe"),
        ("escape", "It fits"), ("escape", "Go on with these rows"), ("escape", "Which model?"), ("escape", "It comes to this"),
        ("escape", "suggests"), ("escape", "What is your goal?"), ("escape", "No runs yet"),
    )  # fmt: skip
    assert len(seen) == 9 * len(SIZES)
    for (name, size), text in seen.items():
        approved(f"wizard-{name}-{size}", text)
    for name, text in again.items():
        assert text == seen[name.partition(",")[0], "80x24"], f"{name}: after the terminal had other sizes"
    assert len(reasons) == 7 and all(len(text.split()) > 60 for text in reasons)
    assert "Each method is good at one thing" in reasons[0]


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


# ---- what it costs -----------------------------------------------------------------------------------------------------


def test_home_loads_nothing_of_the_way_before_it_is_asked_for():
    code = "import sys, tui.app, tui.screens.home; print(*(m for m in sys.modules if m in ('pydantic', 'recipes', 'yaml') or m.startswith(('tui.wizard', 'tui.screens.wizard', 'engine.data', 'engine.forecast'))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [], done.stdout
