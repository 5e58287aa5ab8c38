"""Zoom, compare, settings, copying and a run's end, driven by keys; their screens as text, compared with what was approved."""

from __future__ import annotations

import asyncio
import re
import shutil

import pytest

from engine.runs.lock import Lock
from tests.tui.driving import SIZES, approved, at_rest, clock_at, drive, settled
from tests.tui.recording import RUN_ID, in_the_middle, recorded_run
from tui.app import FinetuneApp
from tui.notify import desktop_command, sequences, terminal_title
from tui.settings import Settings, load_settings, save_settings, settings_path

OTHER = "base-alignment-20261124-081500-77aa"


@pytest.fixture
def done(monkeypatch):
    run = recorded_run()
    clock_at(monkeypatch, run)
    return run


@pytest.fixture
def two_runs(done):
    other = recorded_run(until=in_the_middle, run_id=OTHER)
    text = other.recipe.read_text().replace("beta: 0.1", "beta: 0.2").replace("seed: 0", "seed: 3", 1)
    other.recipe.write_text(text)
    return [done, other]


def grey(picture):
    colours = {
        tuple(int(value[i : i + 2], 16) for i in (1, 3, 5)) for value in re.findall(r"fill: (#[0-9a-fA-F]{6})", picture)
    }
    return bool(colours) and all(max(colour) - min(colour) <= 24 for colour in colours)


# ---- zoom ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_a_zoomed_chart_looks_as_approved(size, done):
    text, _ = drive(RUN_ID, SIZES[size], ("z", "gauge 1 of 17"), ("tab", "gauge 2 of 17"))
    approved(f"zoom-{size}", text)


def test_one_chart_is_walked_zoomed_scrolled_and_followed(done):
    drive(
        RUN_ID, (100, 30), ("z", "gauge 1 of 17"), ("plus", "steps 51 to 100"), ("plus", "steps 76 to 100"),
        ("left", "steps 70 to 94"), ("left", "steps 64 to 88"), ("f", "steps 76 to 100"), ("minus", "steps 51 to 100"),
        ("a", "steps 1 to 100"), ("l", "log scale"), ("m", "average 0.9"), ("shift+tab", "gauge 17 of 17"),
        ("left_square_bracket", "1 sft"), ("right_square_bracket", "2 dpo"), ("escape", "tok/s"),
    )  # fmt: skip


def test_a_followed_chart_moves_with_the_run_and_one_scrolled_back_stays(done):
    whole = done.events.read_bytes()
    middle = recorded_run(until=in_the_middle, run_id=OTHER)
    lock = Lock(middle.lock)
    lock.acquire()

    async def session():
        app = FinetuneApp(OTHER)
        async with app.run_test(size=(100, 30)) as pilot:
            await settled(pilot, "lr ")
            await pilot.press("z")
            await settled(pilot, "of 60, following")
            await pilot.press("plus")
            await settled(pilot, "steps 31 to 60 of 60, following")
            await pilot.press("left")
            await settled(pilot, "steps 24 to 53 of 60")
            middle.events.write_bytes(whole)
            await settled(pilot, "steps 24 to 53 of 100")
            await pilot.press("f")
            await settled(pilot, "steps 71 to 100 of 100")

    try:
        asyncio.run(session())
    finally:
        lock.release()


def test_resizing_a_zoomed_chart_loses_nothing(done):
    async def session():
        app = FinetuneApp(RUN_ID)
        async with app.run_test(size=(80, 24)) as pilot:
            await settled(pilot, "lr ")
            await pilot.press("z")
            await settled(pilot, "gauge 1 of 17")
            await settled(pilot, "palette")
            before = await at_rest(pilot)
            for size in ((60, 20), (200, 60), (20, 6), (80, 24)):
                await pilot.resize_terminal(*size)
                after = await at_rest(pilot)
            return before, after

    before, after = asyncio.run(session())
    assert before == after


def test_what_does_not_work_now_is_not_in_the_footer(done):
    text, _ = drive(RUN_ID, (120, 30))
    assert "pause" not in text and "resume" not in text and "zoom" in text
    text, _ = drive(RUN_ID, (120, 30), ("z", "gauge 1 of 17"))
    assert "follow" not in text.splitlines()[-1] and "- out" not in text and "+ in" in text
    text, _ = drive(RUN_ID, (120, 30), ("z", "gauge 1 of 17"), ("plus", "steps 51"), ("left", "steps 39"))
    assert "f follow" in text and "- out" in text


def test_samples_stand_side_by_side_and_the_log_can_be_scrolled_back(done):
    text, _ = drive(RUN_ID, (120, 40), ("2", "step 100"))
    line = next(line for line in text.splitlines() if "My friend, the farm" in line)
    assert "The farm serves" in line, "what it said before beside what it says now"
    narrow, _ = drive(RUN_ID, (60, 30), ("2", "step 0"))
    assert not any("The farm serves" in line and "My friend" in line for line in narrow.splitlines())


def test_who_has_scrolled_the_log_back_is_left_there(done):
    whole = done.events.read_bytes()
    middle = recorded_run(until=in_the_middle, run_id=OTHER)

    async def session():
        app = FinetuneApp(OTHER)
        async with app.run_test(size=(80, 24)) as pilot:
            await settled(pilot, "lr ")
            await pilot.press("4")
            await at_rest(pilot)
            log = app.screen.query_one("#log-lines")
            assert log.is_vertical_scroll_end and log.max_scroll_y > 5, "it follows"
            log.scroll_to(y=3, animate=False)
            await at_rest(pilot)
            lines = len(log.lines)
            middle.events.write_bytes(whole)
            await settled(pilot, "all gates passed")
            await at_rest(pilot)
            back = log.scroll_y, len(log.lines) > lines
            log.scroll_end(animate=False)
            return back

    assert asyncio.run(session()) == (3, True)


# ---- compare ---------------------------------------------------------------------------------------------------------------


def pick_two(then):
    return (("v", "Mark two runs"), "down", ("space", "2 marked"), ("enter", "2 dpo.beta"), *then)


@pytest.mark.parametrize("size", SIZES)
def test_two_runs_compared_look_as_approved(size, two_runs):
    text, _ = drive(None, SIZES[size], *pick_two([("right_square_bracket", "dpo: loss")]), shows=OTHER)
    approved(f"compare-{size}", text)
    assert "●" in text and "■" in text, "signs as well as colours"


def test_compared_without_colour_and_without_unicode(two_runs, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("FINETUNE_TUI_ASCII", "1")
    steps = pick_two([("right_square_bracket", "dpo: loss"), ("2", "dpo kl")])
    text, picture = drive(None, (100, 30), *steps, shows=OTHER)
    assert grey(picture)
    ours = "\n".join(line for line in text.splitlines() if "palette" not in line and "━" not in line)
    assert ours.replace("▄", "").replace("█", "").replace("▁", "").replace("…", "").isascii(), ours
    assert "A o" in text and "B x" in text


def test_a_run_is_compared_from_its_monitor_and_what_has_changed_comes_in(two_runs):
    text, _ = drive(
        RUN_ID, (100, 30), ("v", "Mark two runs"), "up", "home", ("space", "2 marked"), ("enter", "2 dpo.beta"),
        ("2", "dpo retention"), ("escape", "tok/s"),
    )  # fmt: skip
    assert "tok/s" in text


def test_runs_are_compared_from_the_palette_too(two_runs):
    drive(None, (80, 24), ("ctrl+p", "Search"), *"Compare", ("enter", "Mark two runs"), shows=OTHER)


def test_a_compared_run_that_is_removed_takes_nothing_else_with_it(two_runs):
    async def session():
        app = FinetuneApp(None)
        async with app.run_test(size=(100, 30)) as pilot:
            await settled(pilot, OTHER)
            app.compare([run.id for run in two_runs])
            await settled(pilot, "2 dpo.beta")
            shutil.rmtree(two_runs[1].path)
            await pilot.pause(2.5)
            await pilot.press("l")
            await settled(pilot, "log scale")

    asyncio.run(session())


def test_one_run_cannot_be_compared(done):
    drive(RUN_ID, (80, 24), ("v", "There are not two runs yet"), ("escape", "tok/s"))


# ---- settings --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_the_settings_look_as_approved(size, monkeypatch):
    monkeypatch.setenv("HF_HOME", "/somewhere/huggingface")
    monkeypatch.setenv("FINETUNE_TUI_HOME", "/somewhere/finetune-tui")
    text, _ = drive(None, SIZES[size], ("f2", "Theme"), shows="No runs yet")
    approved(f"settings-{size}", text)


def test_a_choice_is_in_force_at_once_and_kept(home):
    def theme(app):
        return app.theme

    steps = (("f2", "Theme"), ("enter", "colour-blind"), "down", "down", "enter")
    assert drive(None, (80, 24), *steps, shows="No runs yet", then=theme) == "colour-blind"
    assert 'theme = "colour-blind"' in settings_path().read_text()
    assert settings_path().parent == home, "FINETUNE_TUI_HOME keeps everything in one place"
    assert drive(None, (80, 24), shows="No runs yet", then=theme) == "colour-blind"


def test_a_theme_of_the_palette_is_kept_too():
    def choose(app):
        app.theme = "nord"
        return load_settings().settings.theme

    assert drive(None, (80, 24), shows="No runs yet", then=choose) == "nord"


def test_a_directory_has_to_be_one():
    wrong = (("f2", "Theme"), *["tab"] * 5, *"rel", ("enter", "is no full path"))
    drive(None, (100, 40), *wrong, shows="No runs yet")
    assert load_settings().settings.runs == ""
    right = (("f2", "Theme"), *["tab"] * 5, *"/usr", ("enter", "kept; it counts"))
    drive(None, (100, 40), *right, shows="No runs yet")
    assert load_settings().settings.runs == "/usr"


@pytest.mark.parametrize(
    "text, said",
    [
        ('theme = "drak"\nmouse = false\n', "Did you mean `dark`?"),
        ("mouse = 3\n", "accepted: `true` or `false`"),
        ("thene = 1\n", "Did you mean `theme`?"),
        ("theme = \n", "is no TOML"),
        ("runs = 7\n", "a path in quotes"),
        (b"\xff\xfe", "cannot be read"),
    ],
)
def test_a_bad_file_is_named_and_nothing_of_it_is_lost(text, said, home):
    home.mkdir()
    settings_path().write_bytes(text if isinstance(text, bytes) else text.encode())
    loaded = load_settings()
    assert len(loaded.problems) == 1 and said in loaded.problems[0] and str(settings_path()) in loaded.problems[0]
    assert loaded.settings == Settings(mouse="mouse = false" not in str(text)), "its good lines are in force"
    shown, _ = drive(None, (120, 30), shows="toml")
    assert "No runs yet" in shown
    save_settings(Settings(theme="light"))
    kept = settings_path().with_suffix(".toml.bak").read_bytes()
    assert kept == (text if isinstance(text, bytes) else text.encode()) and load_settings().settings.theme == "light"


def test_a_settings_directory_that_cannot_be_written_loses_no_choice(home, monkeypatch):
    home.write_text("a file where a directory should be")

    def theme(app):
        return app.theme

    steps = (("f2", "Theme"), ("enter", "light"), "down", ("enter", "could not be kept"))
    assert drive(None, (100, 30), *steps, shows="No runs yet", then=theme) == "textual-light"


@pytest.mark.parametrize("theme", ["dark", "light", "colour-blind", "ansi", "ansi-light", "nord"])
def test_every_theme_draws_the_monitor(theme, done):
    save_settings(Settings(theme=theme))
    text, _ = drive(RUN_ID, (80, 24))
    assert "KL est" in text


def test_keys_can_be_hidden(done):
    save_settings(Settings(keys="hidden"))
    text, _ = drive(RUN_ID, (80, 24))
    assert "leave" not in text.splitlines()[-1]


# ---- help, palette, copying --------------------------------------------------------------------------------------------------


def test_every_screen_has_its_help(two_runs):
    drive(
        RUN_ID, (100, 50), ("question_mark", "how much the charts are smoothed"), ("escape", "tok/s"), ("z", "gauge 1"),
        ("question_mark", "scroll back, scroll on"), ("escape", "gauge 1"), ("escape", "tok/s"), ("f2", "Theme"),
        ("question_mark", "the one before"),
    )  # fmt: skip
    drive(None, (100, 50), *pick_two([("question_mark", "a letter, a sign")]), shows=OTHER)


def test_dialogs_and_pages_have_their_help_too(two_runs):
    """Read off their own keys, so that it says what works here."""
    drive(
        RUN_ID, (100, 50), ("y", "the run's directory"), ("question_mark", "Enter takes one"), ("escape", "the run's directory"),
        ("escape", "tok/s"), ("e", "export"), ("question_mark", "other type"), ("escape", "export"), ("escape", "tok/s"),
        ("v", "Mark two runs"), ("question_mark", "take the mark off"), ("f1", "Mark two runs"),
    )  # fmt: skip
    drive(
        None, (100, 50), ("x", "Remove"), ("question_mark", "y          yes"), ("escape", "Remove"), ("escape", "r resume"),
        ("question_mark", "a new recipe, step by step"), ("escape", "r resume"), ("n", "What is your goal?"),
        ("question_mark", "what was said is kept"), ("escape", "What is your goal?"), ("t", "Complexity"),
        ("question_mark", "aside"), ("escape", "Complexity"), shows=OTHER,
    )  # fmt: skip
    text, _ = drive(None, (100, 50), ("i", "Which data?"), *"la?b", ("f1", "letters"), ("f1", "la?b"), shows=OTHER)
    assert "? help" not in text, "where letters are typed the footer does not promise it"


def test_the_palette_names_hidden_keys_too(done):
    drive(
        RUN_ID, (100, 30), ("ctrl+p", "Search"), *"Log scale", ("enter", "charts: average 0.6, raw as dots, log scale")
    )
    text, _ = drive(RUN_ID, (100, 30), ("colon", "Search"), ("escape", "^p palette"))  # where Ctrl+P is somebody else's
    assert "^q leave" in text


def test_copying_goes_to_the_terminals_clipboard(done):
    def clipboard(app):
        return app.clipboard

    assert drive(RUN_ID, (100, 30), ("y", "the run's directory"), ("enter", "copied"), then=clipboard) == str(done.path)
    steps = [("y", "the newest sample"), *["down"] * 4, ("enter", "copied the newest sample")]
    assert drive(RUN_ID, (100, 30), *steps, then=clipboard).startswith("Describe the cave.\n")


# ---- a run's end -------------------------------------------------------------------------------------------------------------


def test_who_watched_a_run_is_told_when_it_ends(done, monkeypatch):
    whole = done.events.read_bytes()
    shutil.rmtree(done.path)
    run = recorded_run(until=in_the_middle)
    lock = Lock(run.lock)
    lock.acquire()
    said = []
    monkeypatch.setattr(FinetuneApp, "is_headless", property(lambda self: False))
    monkeypatch.setattr(FinetuneApp, "_notice_closed_terminal", lambda self: None)
    monkeypatch.setattr(FinetuneApp, "_say_to_terminal", lambda self, sequence: said.append(sequence))
    monkeypatch.setattr("tui.notify.desktop_command", lambda title, text: None)

    async def session():
        app = FinetuneApp(RUN_ID)
        async with app.run_test(size=(80, 24)) as pilot:
            await settled(pilot, "60/100")
            assert terminal_title(f"running: {RUN_ID}") in said and not any("]9;" in one for one in said)
            run.events.write_bytes(whole)
            await settled(pilot, "all gates passed")

    asyncio.run(session())
    lock.release()
    assert sum("]9;" in one for one in said) == 1 and terminal_title(f"done: {RUN_ID}") in said


def test_what_is_said_to_terminals():
    plain = sequences("run; x", "done\x1b]2;evil\x07", "auto", {})
    assert plain.startswith("\x1b]9;run, x: done ]2,evil \x1b\\\x1b]777;notify;run, x;") and plain.endswith("\a")
    wrapped = sequences("run", "done", "terminal", {"TMUX": "/tmp/x"})
    assert wrapped.startswith("\x1bPtmux;\x1b\x1b]9;run: done") and wrapped.endswith("\x1b\\\a")
    assert sequences("run", "done", "off", {}) == "" and sequences("run", "done", "bell", {}) == "\a"


def test_the_desktop_is_told_only_where_one_sits(monkeypatch):
    monkeypatch.setattr("tui.notify.shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr("tui.notify.sys.platform", "linux")
    assert desktop_command("a", "b", {"DISPLAY": ":0"}) == ["notify-send", "--app-name=finetune-tui", "--", "a", "b"]
    assert desktop_command("a", "b", {"DISPLAY": ":0", "SSH_CONNECTION": "x"}) is None
    assert desktop_command("a", "b", {}) is None
    monkeypatch.setattr("tui.notify.sys.platform", "darwin")
    assert desktop_command('say "hi"', "b\\", {})[2] == 'display notification "b\\\\" with title "say \\"hi\\""'
