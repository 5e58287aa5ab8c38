"""The app on recorded and on real runs, driven by keys; its screens as text, compared with what was approved."""

from __future__ import annotations

import asyncio
import re

import pytest

from engine.runs.events import AlertEvent, ExitEvent, RunEvent, StageEvent, decode, encode
from engine.runs.lock import Lock
from tests.tui.driving import SIZES, approved, at_rest, clock_at, drive, settled, text_of
from tests.tui.recording import RECORDED, RUN_ID, in_the_middle, recorded_run
from tui.app import FinetuneApp


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("moment", ["running", "done"])
def test_the_monitor_looks_as_approved(size, moment, monkeypatch):
    run = recorded_run(until=in_the_middle if moment == "running" else None)
    lock = Lock(run.lock)
    if moment == "running":
        lock.acquire()
    clock_at(monkeypatch, run)
    text, _ = drive(RUN_ID, SIZES[size])
    lock.release()
    approved(f"monitor-{moment}-{size}", text)
    for what in ("loss", "KL", "margin" if moment == "running" else "gap", "sft", "dpo", "tok/s", "Gates"):
        assert what in text, what


def test_without_colour_the_signs_still_say_it(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    run = recorded_run()
    clock_at(monkeypatch, run)
    text, picture = drive(RUN_ID, (80, 24))
    approved("monitor-done-80x24", text)  # the same signs and marks as in colour
    colours = {
        tuple(int(value[i : i + 2], 16) for i in (1, 3, 5)) for value in re.findall(r"fill: (#[0-9a-fA-F]{6})", picture)
    }
    assert colours and all(max(colour) - min(colour) <= 24 for colour in colours), "grey only"


def test_ascii_only(monkeypatch):
    monkeypatch.setenv("FINETUNE_TUI_ASCII", "1")
    run = recorded_run(until=in_the_middle)
    clock_at(monkeypatch, run)
    text, _ = drive(RUN_ID, (80, 24))
    approved("monitor-ascii-80x24", text)
    ours = "\n".join(line for line in text.splitlines() if "palette" not in line and "━" not in line)
    assert ours.replace("▄", "").replace("█", "").replace("▁", "").replace("…", "").isascii()


FAILED = [
    StageEvent(stage=1, state="failed", method="dpo", reason="rows that are too long"),
    ExitEvent(stage=1, process="02-dpo", pid=7, code=2, reason="ended with code 2"),
    RunEvent(state="failed", reason="stage 2 (dpo): rows that are too long", code=2),
]


@pytest.mark.parametrize("size", ["80x24", "60x20"])
def test_home_says_how_each_run_stands(size, monkeypatch):
    recorded_run(run_id="a-done-run")
    recorded_run(until=in_the_middle, run_id="b-interrupted-run")
    recorded_run(until=in_the_middle, run_id="c-failed-run", more=b"".join(map(encode, FAILED)))
    text, _ = drive(None, SIZES[size], shows="failed-run")
    approved(f"home-{size}", re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "0000-00-00 00:00", text))
    assert "rows that are too long" in text and "resume carries on" in text


def test_an_empty_home_says_what_to_press():
    text, _ = drive(None, (80, 24), shows="No runs yet")
    assert "Press d to run the demo" in text


def test_resizing_loses_nothing(monkeypatch):
    run = recorded_run()
    clock_at(monkeypatch, run)

    async def session():
        app = FinetuneApp(RUN_ID)
        async with app.run_test(size=(80, 24)) as pilot:
            await settled(pilot, "lr ")
            before = await at_rest(pilot)
            for size in ((60, 20), (200, 60), (30, 10), (80, 24)):
                await pilot.resize_terminal(*size)
                after = await at_rest(pilot)
            return before, after

    before, after = asyncio.run(session())
    assert before == after


def test_keys_open_tabs_stages_help_and_go_back(monkeypatch):
    run = recorded_run()
    clock_at(monkeypatch, run)
    text, _ = drive(
        RUN_ID, (100, 30),
        ("2", "step 100"), ("4", "gate"), ("left_square_bracket", "SFT has no reward"),
        ("right_square_bracket", "margin"), ("question_mark", "WORDS"), ("escape", "tok/s"), ("escape", "sft → dpo"),
        ("enter", "tok/s"),
    )  # fmt: skip
    assert "lr " in text


def test_what_does_not_work_now_is_not_offered(monkeypatch):
    recorded_run()

    async def session():
        app = FinetuneApp()
        async with app.run_test(size=(80, 24)) as pilot:
            await settled(pilot, RUN_ID)
            screen = app.screen
            return {
                word: screen.check_action("steer", (word,)) for word in ("resume", "pause", "stop", "remove")
            }, text_of(app)

    allowed, text = asyncio.run(session())
    assert allowed == {"resume": False, "pause": False, "stop": False, "remove": True}
    assert "It cannot be resumed: it is done" in text


def test_removing_asks_and_keeps_or_removes():
    run = recorded_run()
    drive(None, (80, 24), ("x", "Remove base-alignment"), ("n", "It cannot"), shows=RUN_ID)
    assert run.path.exists()
    drive(None, (80, 24), ("x", "Remove base-alignment"), ("enter", "It cannot"), shows=RUN_ID)
    assert run.path.exists(), "the focus is on the answer that keeps"
    drive(None, (80, 24), ("x", "Remove base-alignment"), ("y", "No runs yet"), shows=RUN_ID)
    assert not run.path.exists()


def test_the_palette_names_what_the_keys_do():
    run = recorded_run()
    drive(
        None,
        (80, 24),
        ("ctrl+p", "Search"),
        *"Remove",
        ("enter", "Remove base-alignment"),
        ("y", "No runs"),
        shows=RUN_ID,
    )
    assert not run.path.exists()


def test_pausing_and_stopping_a_run_by_keys(fake_run):
    fake = fake_run(hold=1)
    process = fake.supervise()
    fake.wait_step(1)
    drive(fake.run.id, (80, 24), ("p", "paused"), shows="step")
    assert process.wait(20) == 1 and fake.status() == "paused"
    process = fake.supervise()
    drive(fake.run.id, (80, 24), ("s", "Stop fake-"), ("y", "stopped"), shows="running")
    process.wait(20)
    assert fake.status() == "stopped"


def test_leaving_leaves_the_run(fake_run):
    fake = fake_run(hold=1)
    process = fake.supervise()
    fake.wait_step(1)
    drive(fake.run.id, (80, 24), "ctrl+q", shows="step")
    assert process.poll() is None
    fake.go()
    assert process.wait(60) == 0


def test_a_reason_with_brackets_is_shown_as_it_is():
    """Markup in what a run says must neither style the screen nor break it."""
    said = AlertEvent(level="warning", code="x", text="odd [bold]words[/] and [unclosed")
    recorded_run(until=in_the_middle, more=encode(said))
    text, _ = drive(RUN_ID, (100, 30), ("3", "odd [bold]words[/] and [unclosed"))
    assert "[unclosed" in text


def test_the_recording_is_a_whole_run():
    events = [decode(line) for line in (RECORDED / "base-alignment.jsonl").read_bytes().splitlines()]
    assert isinstance(events[0], RunEvent) and isinstance(events[-1], RunEvent) and events[-1].state == "done"
