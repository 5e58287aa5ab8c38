"""The app in a real terminal with a real run: start, watch, detach, kill the app, attach again, pause, resume, finish."""

from __future__ import annotations

import shutil
import signal

import psutil
import pytest

from engine.runs.directory import RunDirectory
from tests.tmux import FINETUNE, Terminal

pytestmark = [
    pytest.mark.kill,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed"),
]


@pytest.fixture
def terminal(real):
    opened = Terminal(real.environment)
    yield opened
    opened.close()


def app_process(run):
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "attach" in words and run.id in words and any("finetune-tui" in word for word in words):
            return process
    raise AssertionError("no app on this run")


def test_an_evening_in_the_terminal(real, terminal, uninterrupted):
    terminal.type(f"{FINETUNE} run {real.home / 'short.yaml'}")
    terminal.shows("1 sft", "runs", "pause", "leave")
    folders = [path for path in (real.home / "runs").iterdir() if not path.name.startswith(".")]
    real.run = RunDirectory(folders[0])
    real.wait(lambda state: state.stages[0].steps_done >= 2)
    held = real.stages()  # a fast machine is at the run's end before the app has been opened three times
    for process in held:
        process.suspend()
    assert held
    terminal.shows("tok/s", "grad")

    terminal.key("C-q")
    terminal.shows("it goes on in the background", f"attach {real.run.id}")
    assert terminal.flags() == ["0", "0"] and real.supervisor() is not None

    for ending in (signal.SIGTERM, signal.SIGHUP):
        terminal.type(f"clear; {FINETUNE} attach {real.run.id}")
        terminal.shows("1 sft", "leave")
        app_process(real.run).send_signal(ending)
        terminal.shows("it goes on in the background")
        assert terminal.flags() == ["0", "0"], ending
    assert real.supervisor() is not None

    terminal.type(f"clear; {FINETUNE} attach {real.run.id}")
    terminal.shows("1 sft", "leave")
    app_process(real.run).kill()
    terminal.shows("Killed")
    terminal.key("Enter")
    assert real.supervisor() is not None or real.status() == "done"

    terminal.type("reset; clear")
    terminal.type(f"{FINETUNE} attach {real.run.id}")
    terminal.shows("leave", "pause")
    terminal.key("p")
    real.wait(lambda state: any(alert.code == "control" for alert in state.alerts))
    for process in held:
        process.resume()
    real.wait(lambda state: real.status() == "paused")
    terminal.shows("paused: paused by the user")
    terminal.key("r")
    real.wait(lambda state: real.status() != "paused")
    real.finish()
    terminal.shows("done in", "2 dpo")
    watched = terminal.rests()
    assert real.result() == uninterrupted.result()

    terminal.key("C-q")
    terminal.shows(f"{real.run.id}: done")
    terminal.type(f"clear; {FINETUNE} attach {real.run.id}")
    top = "\n".join(watched.splitlines()[:16])
    terminal.shows(top, seconds=20)  # all of it but the tabs: the same as if it had been watched all along
    terminal.key("C-q")
