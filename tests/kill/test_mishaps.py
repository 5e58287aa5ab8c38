"""What happens at home besides kill -9: closed terminals, stray signals, damaged files, full disks, odd folders."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from engine.account import gate_value
from engine.runs.directory import RunDirectory
from tests.kill.test_kill import kill_all
from tests.real_run import COMMAND, RECIPE
from tests.runs.fakes import wait_for

pytestmark = [pytest.mark.kill, pytest.mark.timeout(900)]
SFT_ONLY = RECIPE[: RECIPE.index("  - method: dpo")]


def newest_checkpoint(run: RunDirectory, index: int, method: str) -> Path:
    return sorted((run.stage_folder(index, method) / "checkpoints").glob("step-*"))[-1]


def test_an_eventful_evening_ends_in_the_same_bits(real, uninterrupted, tmp_path):
    """Started from a folder with decoys, signals to everything, the terminal closed, paused, the newest checkpoint
    damaged, resumed twice at once, killed."""
    decoys = tmp_path / "decoys"
    for name in ("engine", "recipes", "tui", "assets"):
        (decoys / name).mkdir(parents=True)
        (decoys / name / "__init__.py").write_text("raise SystemExit('the decoy was imported')")
    for name in ("torch", "yaml", "json"):
        (decoys / f"{name}.py").write_text("raise SystemExit('the decoy was imported')")

    # Started by its command on a terminal of its own, which is then closed.
    terminal, end = pty.openpty()
    command = [str(Path(sys.executable).with_name("finetune-tui")), "run", str(real.home / "short.yaml")]
    watching = subprocess.Popen(
        command, cwd=decoys, env=real.environment, stdin=end, stdout=end, stderr=end, start_new_session=True
    )
    os.close(end)
    folders = wait_for(lambda: list((real.home / "runs").glob("[!.]*")) if (real.home / "runs").is_dir() else None)
    real.run = RunDirectory(folders[0])
    real.wait(lambda state: state.stages and state.stages[0].steps_done >= 1)
    os.close(terminal)
    real.wait(lambda state: state.stages[0].steps_done >= 2)
    watching.send_signal(signal.SIGHUP)
    watching.wait(20)

    for word in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        for process in [psutil.Process(real.supervisor().pid), *real.stages()]:
            process.send_signal(word)
    real.wait(lambda state: state.stages[0].steps_done >= 5)
    assert real.run.state().attempt == 1, "no signal but SIGKILL ends a run"

    paused = real.command("pause", real.run.id)
    assert paused.returncode == 0 and "pause" in paused.stdout
    real.wait(lambda state: real.status() == "paused")
    real.wait(
        lambda state: real.stages() == [] and real.supervisor() is None, 20
    )  # the report is written after the word

    damaged = newest_checkpoint(real.run, 0, "sft") / "adapter_model.safetensors"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)

    both = [
        subprocess.Popen(
            [*command[:1], "resume", real.run.id, "--detach"], cwd=decoys, env=real.environment, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=60)[1] for process in both]
    codes = [process.returncode for process in both]
    assert sorted(codes) == [0, 2], said
    assert "is held by process" in said[codes.index(2)]

    # kill -9 of everything, in the other stage; its process was started by the command line as all the others here.
    real.wait(lambda state: state.stages[1].steps_done >= 3)
    kill_all(real)
    real.wait(lambda state: real.status() == "interrupted")
    real.resume()
    real.finish()
    assert any("is damaged" in alert.text for alert in real.run.state().alerts)
    assert real.result() == uninterrupted.result()


def test_watching_from_the_start_and_attaching_at_the_end_show_the_same(uninterrupted):
    attached = uninterrupted.command("attach", uninterrupted.run.id)
    shown = uninterrupted.command("show", uninterrupted.run.id)
    assert attached.returncode == shown.returncode == 0 or attached.returncode == 3
    gates = [gate for stage in uninterrupted.run.state().stages for gate in stage.gates.values()]
    assert gates
    for told in (attached.stdout, shown.stdout):
        figures = [line.split()[1:3] for line in told.splitlines() if line.strip()]
        assert all([gate.name, gate_value(gate)] in figures for gate in gates)


@pytest.mark.parametrize("also_the_supervisor", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_two_gloo_processes_train_one_stage_and_die_together(also_the_supervisor, real, warm):
    recipe = SFT_ONLY.replace("threads: 1", "threads: 1\nprocesses: 2") + "on_gate_fail: warn\n"
    (warm.home / "short.yaml").write_text(recipe)
    warm.start()
    warm.finish()
    assert warm.run.state().stages[0].steps_done == 16, warm.logs()

    (real.home / "short.yaml").write_text(recipe)
    real.start()
    real.wait(lambda state: state.stages[0].steps_done >= 5)
    ranks = [process for process in real.stages() if "accelerate" not in " ".join(process.cmdline())]
    assert len(ranks) == 2
    everybody = real.stages()
    ranks[1].kill()  # one rank: the supervisor starts both again
    real.wait(lambda state: state.attempt == 2)
    psutil.wait_procs(everybody, timeout=30)
    assert not any(process.is_running() for process in everybody), "a rank outlived the other"
    if also_the_supervisor:
        real.wait(lambda state: state.stages[0].steps_done >= 7)
        everybody = real.stages()
        psutil.Process(real.supervisor().pid).kill()
        psutil.wait_procs(everybody, timeout=30)
        assert real.stages() == [], "a rank outlived its supervisor"
        real.resume()
    real.finish()
    assert real.result() == warm.result()


FULL_DISK = """
import json, os, subprocess, sys, time
from pathlib import Path
from engine.runs.directory import RunDirectory, status
home = Path(os.environ["FINETUNE_TUI_HOME"])
filler = home / "filler"
words = {words!r}
def finetune(*more):
    return subprocess.run([*words, *more], capture_output=True, text=True)
started = finetune("run", {recipe!r}, "--detach", "--json")
assert started.returncode == 0, started.stderr
run = json.loads(started.stdout)["id"]
def shown():
    return json.loads(finetune("show", run, "--json").stdout)
def wait(condition):
    while not condition(RunDirectory(home / "runs" / run)):
        time.sleep(0.05)
wait(lambda run: run.state().stages[0].steps_done >= 4)
room = os.statvfs(home)
with open(filler, "wb") as file:
    file.write(bytes(room.f_bavail * room.f_frsize - 10 * 2**20))
wait(lambda run: status(run, run.state()) in ("paused", "failed", "done"))
first = shown()
filler.unlink()
resumed = finetune("resume", run)
print(json.dumps([first["status"], first["reason"], resumed.returncode, shown()["status"]]))
"""


def test_a_full_disk_pauses_the_run_and_says_what_it_needs(tmp_path):
    """On a small file system of its own, mounted where only these processes see it."""
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    (tmp_path / "short.yaml").write_text(SFT_ONLY + "on_gate_fail: warn\n")
    home = tmp_path / "small"
    home.mkdir()
    script = FULL_DISK.format(words=COMMAND, recipe=str(tmp_path / "short.yaml"))
    (tmp_path / "script.py").write_text(textwrap.dedent(script))
    inside = f"mount -t tmpfs -o size=64m tmpfs {home} && exec {sys.executable} {tmp_path}/script.py"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", inside],
        env={**os.environ, "FINETUNE_TUI_HOME": str(home)}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    import json

    status, reason, code, after = json.loads(done.stdout.splitlines()[-1])
    assert status == "paused" and "the disk is full" in reason and "MiB are needed" in reason and "resume" in reason
    assert (code, after) in ((0, "done"), (3, "done"))


def test_an_app_whose_terminal_goes_without_a_signal_ends(real):
    terminal, end = pty.openpty()
    app = subprocess.Popen(
        [str(Path(sys.executable).with_name("finetune-tui"))], env={**real.environment, "TERM": "xterm-256color"},
        stdin=end, stdout=end, stderr=end, start_new_session=True,
    )  # fmt: skip
    os.close(end)
    assert os.read(terminal, 4096)  # it is up
    time.sleep(1)
    os.close(terminal)
    app.wait(30)
