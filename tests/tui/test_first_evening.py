"""The guided way in a real terminal, by the keyboard alone: from the bare command to a running DPO, and back the next day."""

from __future__ import annotations

import os
import shutil
import signal

import psutil
import pytest
import yaml

from engine.runs.directory import list_runs, status
from engine.runs.lock import read_holder
from tests.tmux import FINETUNE, Terminal
from tui.wizard import keep

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")


@pytest.fixture
def terminal(home):
    opened = Terminal({**os.environ, "OMP_NUM_THREADS": "1"})
    yield opened
    opened.close()
    for run in list_runs():
        holder = read_holder(run.lock)
        if holder and holder.alive():
            os.kill(holder.pid, signal.SIGKILL)  # its stages end with it


def stages_of(run):
    return [one for one in psutil.process_iter(["cmdline"]) if str(run.path) in (one.info["cmdline"] or [])]


def test_from_the_bare_command_to_a_running_dpo_and_back_the_next_day(terminal, until):
    keys = 0

    def press(name, *shows):
        nonlocal keys
        keys += 1
        terminal.key(name)
        return terminal.shows(*shows)

    terminal.type(FINETUNE)
    terminal.shows("No runs yet", "Press n", "help")
    press("n", "What is your goal?", "1", "why")
    press("2", "suggests")
    press("Enter", "It comes to this: DPO")
    press("Enter", "Which model?", "GiB \u2713")
    press("Enter", "Go on with these rows")
    press("Enter", "It fits")
    press("Enter", "\u2713 fits", "Start")
    press("Enter", "1 dpo", "running")
    assert keys == 8
    [run] = list_runs()
    until(lambda: status(run, run.state()) == "running", 60, "it runs")
    terminal.shows(run.id)
    kept = yaml.safe_load(run.recipe.read_text())
    assert kept["model"] == "lab" and kept["stages"][0]["data"]["source"] == "lab/preferences.jsonl"
    assert keep.kept() is None, "what was finished is not offered again"

    # The power goes: the app, the run's supervisor and its stage at once.
    holder = read_holder(run.lock)
    os.kill(holder.pid, signal.SIGKILL)
    for process in stages_of(run):
        process.kill()
    until(lambda: status(run, run.state()) == "interrupted", 60, "nobody works on it")
    terminal.key("C-q")
    until(lambda: terminal.flags() == ["0", "0"], 30, "the app has gone")

    terminal.type(f"clear; {FINETUNE}")
    terminal.shows(run.id, "nothing is lost", "r resume")
    press("r", "running")
    press("Enter", "1 dpo", "leave")
    assert keys == 10, "two keys"
    until(lambda: status(run, run.state()) == "running", 60, "it runs again")
    press("s", "Stop")
    press("y", "stopped")
    until(lambda: status(run, run.state()) == "stopped", 60, "it has ended")
    terminal.key("C-q")
    until(lambda: terminal.flags() == ["0", "0"], 30, "the terminal is as it was")
