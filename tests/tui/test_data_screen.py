"""Looking data over on the screen: the helper process behind it, the mapping, bad files, one of two readings."""

from __future__ import annotations

import json
import threading

import psutil
import pytest

from tests.tui.wizard_driving import TO_DATA, TO_MODEL, drive, on_machine
from tui.wizard import keep
from tui.wizard.draft import draft
from tui.wizard.inspecting import Asked, Inspector
from tui.wizard.mapping import cycled, for_recipe
from tui.wizard.paths import complete


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    on_machine(monkeypatch)


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def look(asked, seconds=30.0):
    """The answer of a helper, and the progress it told."""
    ended, answers, told = threading.Event(), [], []
    inspector = Inspector(
        asked, lambda answer: (answers.append(answer), ended.set()), lambda *words: told.append(words)
    )
    inspector.start()
    assert ended.wait(seconds)
    return answers[0], told


PAIRS = [{"frage": f"what is {n}", "besser": f"yes, {n}", "schlechter": f"no idea about {n}"} for n in range(40)]
PARTS = {"prompt": "frage", "chosen": "besser", "rejected": "schlechter"}


# ---- the helper --------------------------------------------------------------------------------------------------------


def test_the_helper_answers_as_the_command_does(tmp_path):
    path = lines(tmp_path / "a.jsonl", [{"prompt": f"q{n}", "completion": f"a{n}"} for n in range(200)])
    answer, _ = look(Asked(str(path), "sft"))
    assert answer.usable and answer.found["rows"] == 200 and answer.found["reading"]["form"] == "conversation"


def test_it_tells_how_far_it_is(tmp_path):
    path = lines(
        tmp_path / "a.jsonl", [{"prompt": f"question {n}", "completion": "a b c " * 50} for n in range(30_000)]
    )
    answer, told = look(Asked(str(path)))
    assert answer.found["rows"] == 30_000
    assert told and all(0 < done <= size for done, size, _ in told)


def test_it_is_called_off_and_leaves_no_process(tmp_path, until):
    path = lines(
        tmp_path / "a.jsonl", [{"prompt": f"question {n}", "completion": "a b c " * 90} for n in range(60_000)]
    )
    answers, told = [], threading.Event()
    inspector = Inspector(Asked(str(path)), answers.append, lambda *words: told.set())
    inspector.start()
    assert told.wait(30)
    process = psutil.Process(inspector._process.pid)
    inspector.cancel()
    until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, 10)
    inspector._thread.join(10)
    assert answers == []


def test_a_helper_that_dies_is_a_problem_and_no_crash(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONHOME", "/nowhere")  # python cannot start
    answer, _ = look(Asked(str(tmp_path / "a.jsonl")))
    assert not answer.usable and "ended with exit code" in str(answer.problems[0])


def test_two_readings_come_back_as_a_choice(tmp_path):
    path = lines(tmp_path / "a.jsonl", [{"query": f"a{n}", "problem": f"b{n}", "response": "c"} for n in range(20)])
    answer, _ = look(Asked(str(path), "sft"))
    assert not answer.usable and len(answer.readings) == 2 and set(answer.columns) == {"query", "problem", "response"}
    chosen, _ = look(Asked(str(path), "sft", answer.readings[1]["columns"]))
    assert chosen.usable and chosen.found["reading"]["columns"] == answer.readings[1]["columns"]


# ---- the mapping -------------------------------------------------------------------------------------------------------


def test_columns_turn_and_never_share():
    reading = {"columns": {"prompt": "a", "completion": "b"}}
    assert cycled(reading, "prompt", ["a", "b", "c"], 1) == {"prompt": "b", "completion": "a"}
    assert cycled(reading, "prompt", ["a", "b", "c"], -1) == {"prompt": "c", "completion": "b"}


@pytest.mark.parametrize(
    ("reading", "columns", "method", "said"),
    [
        ({"layout": "preference", "form": "preference", "columns": {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}},
         ["prompt", "chosen", "rejected"], "dpo", {}),
        ({"layout": "preference", "form": "preference", "columns": PARTS}, list(PARTS.values()), "dpo", PARTS),
        ({"layout": "prompt and answer", "form": "question", "columns": {"prompt": "prompt", "answer": "answer"}},
         ["prompt", "completion", "answer"], "sft", {"prompt": "prompt", "completion": "answer"}),
    ],
)  # fmt: skip
def test_a_recipe_reads_the_rows_as_the_inspection_did(reading, columns, method, said):
    assert for_recipe(reading, columns, method) == said


# ---- paths -------------------------------------------------------------------------------------------------------------


def test_paths_complete_while_they_are_typed(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jsonl").write_text("{}")
    (tmp_path / "data" / "notes.docx").write_text("")
    (tmp_path / ".hidden").mkdir()
    monkeypatch.chdir(tmp_path)
    assert [one.word for one in complete("", (".jsonl",))] == ["lab/", "builtin/", "data/"]
    assert [one.word for one in complete("data/", (".jsonl",))] == ["data/a.jsonl"]
    assert [one.word for one in complete(str(tmp_path / "DA"), (".jsonl",))] == [f"{tmp_path}/data/"]
    assert [one.word for one in complete("lab/pref", (".jsonl",))] == [
        "lab/preferences-heldout.jsonl",
        "lab/preferences.jsonl",
    ]
    assert complete("/no/such/place/", (".jsonl",)) == []


# ---- on the screen -----------------------------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory: a path in it is soon typed."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


OWN = (*TO_MODEL, ("type qwen3-0.6", "Qwen/Qwen3-0.6B"), ("enter", "Which data?"))


def test_columns_that_nobody_knows_are_named_by_hand(here):
    """A file with other names is no dead end: each part's column is said with the arrow keys."""
    lines(here / "pairs.jsonl", PAIRS)
    begin = (*OWN, "type pairs.jsonl", ("enter", "which of your columns plays which part"), "down", "down")
    text = drive(
        *begin, ("down", "which column?"), ("right", "‹ frage ›"), "down", ("right", "‹ frage ›"), ("right", "‹ besser ›"),
        "up", ("right", "‹ frage ›"), "down", "down", ("left", "Go on with these rows"), size=(110, 40),
    )  # fmt: skip
    assert keep.kept().sources[0].columns == PARTS and "schlechter" in text


def test_a_mapping_is_changed_with_the_arrow_keys_and_lands_in_the_recipe(here):
    rows = [{"question": f"what is {n}", "good": f"yes, {n}", "bad": f"no idea about {n}"} for n in range(1100)]
    lines(here / "pairs.jsonl", rows)
    text = drive(
        *OWN, "type pairs.jsonl", ("enter", "Go on with these rows"), *["down"] * 5, ("right", "chosen         ‹ bad ›"),
        ("", "Go on with these rows"), size=(110, 40),
    )  # fmt: skip
    assert "rejected       ‹ good ›" in text
    assert keep.kept().sources[0].columns == {"prompt": "question", "chosen": "bad", "rejected": "good"}
    assert "chosen: bad" in draft(keep.kept())


def test_bad_data_are_told_with_place_and_mend_and_mended_without_leaving(here):
    path, seen = here / "pairs.jsonl", []
    path.write_text(json.dumps({"prompt": "a", "chosen": "b", "rejected": "c"}) + ",\n")

    def mend(text):
        seen.append(text)
        lines(path, [{"prompt": f"a{n}", "chosen": f"b{n}", "rejected": f"c {n}"} for n in range(1100)])

    drive(
        *OWN, "type pairs.jsonl", ("enter", "cannot be used"), ("", mend), ("f9", "No runs yet"),
        ("n", "A recipe was begun"), ("y", "Go on with these rows"), size=(110, 30),
    )  # fmt: skip
    assert "pairs.jsonl, line 1" in seen[0] and "without the comma at its end" in seen[0]


def test_data_of_another_kind_say_what_the_method_needs():
    text = drive(*TO_DATA, "down", ("enter", "Which data?"), "ctrl+u", "type lab/domain.jsonl",
                 ("enter", "which of your columns"), size=(110, 40))  # fmt: skip
    assert "`prompt`+`chosen`+`rejected`" in text


def test_the_data_screen_alone_says_whom_the_rows_serve():
    text = drive(("i", "Which data?"), "type lab/questions.jsonl", ("enter", "These rows can be used"), size=(120, 50))
    for words in ("which methods it serves", "calibration", "ready", "needs preference pairs", "characters mean"):
        assert words in text, words
    drive(("i", "Which data?"), ("escape", "Enter names it"), ("escape", "No runs yet"))


def test_a_data_set_of_the_hub_is_named_as_a_path_is(tmp_path, monkeypatch):
    """Without network it is refused with the reason; with one it is fetched, looked over, and stays a word of the recipe."""
    from tests.models.hub import Hub

    rows = "".join(
        json.dumps({"prompt": f"what is {n}", "chosen": f"it is {n}", "rejected": f"no {n}"}) + "\n"
        for n in range(1100)
    )
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    hub = Hub({"train.jsonl": rows.encode(), "README.md": b""}, large={"train.jsonl"})
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    drive(*OWN, "type owner/pairs", ("enter", "HF_HUB_OFFLINE is set"), size=(110, 30))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    try:
        text = drive(("n", "A recipe was begun"), ("y", "Go on with these rows"), size=(110, 30))
    finally:
        hub.close()
    assert "1100" in text and "owner/pairs" in text
    assert keep.kept().sources[0].path == "owner/pairs" and "source: owner/pairs" in draft(keep.kept())


def test_a_verifier_is_tried_on_the_answers_and_another_one_when_it_is_turned():
    text = drive(
        ("n", "What is your goal?"), ("3", "Simple verification"), ("1", "It comes to this: GRPO"), ("enter", "Which model?"),
        ("", "GiB ✓"), ("enter", "verifiable 100% by `number`"), "end", ("right", "by `exact`"), size=(110, 40),
    )  # fmt: skip
    assert "more than 80 % is wanted" in text and keep.kept().sources[0].words["verifier"] == "exact"
