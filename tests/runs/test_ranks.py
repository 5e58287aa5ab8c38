"""The launcher of several MLX processes, with small scripts for stages: what it tells them, and how they end together."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from engine.runs.child import child_environment
from engine.runs.directory import RunDirectory
from engine.runs.supervisor import stage_command_of
from recipes.load import load_recipe

LAUNCH = [sys.executable, "-P", "-m", "engine.runs.ranks"]


def launched(count, script, threads=None, **options):
    return subprocess.Popen(
        [*LAUNCH, str(count), "-c", script], env=child_environment(1, threads, True), stdout=subprocess.PIPE, text=True, **options
    )  # fmt: skip


def test_each_is_told_who_it_is_and_has_the_line_to_the_supervisor():
    ours, theirs = socket.socketpair()
    script = (
        "import os, socket; line = socket.socket(fileno=0); "
        "line.send(' '.join(os.environ[name] for name in ('RANK', 'WORLD_SIZE', 'OMP_NUM_THREADS')).encode() + b'\\n')"
    )
    done = launched(3, "import time; " + script + "; time.sleep(0.3)", threads=6, stdin=theirs)
    assert done.wait(20) == 0
    assert sorted(ours.recv(1000).decode().split("\n"))[1:] == ["0 3 2", "1 3 2", "2 3 2"]


@pytest.mark.parametrize(
    "script, code",
    [
        ("time.sleep(60) if rank else os._exit(7)", 7),
        ("os._exit(1) if rank else (time.sleep(0.5), os._exit(80))", 80),
        ("os.kill(os.getpid(), 9) if rank else time.sleep(60)", -signal.SIGKILL),
        ("time.sleep(0.5) if rank == 0 else None", 0),
    ],
    ids=["the first has ended", "the first says why", "killed", "the others are done before the first"],
)
def test_they_end_together_and_the_launcher_says_how(script, code):
    began = time.monotonic()
    done = launched(2, "import os, time; rank = int(os.environ['RANK']); " + script, stdin=subprocess.DEVNULL)
    assert done.wait(50) == code and done.stdout.read() == ""  # the pipe is closed: none is left that holds it
    assert time.monotonic() - began < 50


RING = """
import json, os, sys
import mlx.core as mx
from engine.backends.mlx.ranks import join
ranks = join()
own = mx.random.normal((5, 7), key=mx.random.key(10 * int(sys.argv[1]) + ranks.rank))
means, loss = ranks.averaged({"a.b": own, "a.c": own[0]}, float(ranks.rank))
ranks.check_same(means, 1)
if ranks.first:
    print(json.dumps([loss, means["a.b"].tolist(), means["a.c"].tolist()]))
"""


def test_two_rings_at_once_average_each_its_own_and_to_the_same_bits():
    mx = pytest.importorskip("mlx.core")
    rings = [
        subprocess.Popen([*LAUNCH, "3", "-c", RING, str(number)], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        for number in (1, 2)
    ]  # fmt: skip
    for number, ring in zip((1, 2), rings, strict=True):
        said, _ = ring.communicate(timeout=60)
        assert ring.returncode == 0
        loss, whole, row = json.loads(said)
        expected = sum(mx.random.normal((5, 7), key=mx.random.key(10 * number + rank)) for rank in range(3)) / 3
        assert loss == 1.0  # the mean of 0, 1 and 2
        for mean, wanted in ((whole, expected), (row, expected[0])):
            assert mx.allclose(mx.array(mean), wanted, rtol=1e-5, atol=1e-6).item()


def test_ranks_that_differ_are_no_longer_trained():
    mx = pytest.importorskip("mlx.core")
    from engine.backends.mlx.ranks import Ranks

    ends = socket.socketpair()
    found = {}

    def check(rank, value):
        try:
            Ranks(rank, 2, [ends[rank]]).check_same({"weight": mx.array([1.0, value])}, 4)
        except RuntimeError as error:
            found[rank] = str(error)

    threads = [threading.Thread(target=check, args=(rank, 2.0 + rank * 2e-7)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found.keys() == {0, 1} and "differ" in found[0]


def test_only_stages_that_train_are_started_in_several(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: both\nmodel: lab-nano\nbackend: mlx\nprocesses: 2\nstages:\n"
        "  - {method: sft, data: {source: lab/domain.jsonl}}\n  - {method: calibration, data: {source: lab/questions.jsonl}}\n"
    )
    loaded, run = load_recipe(str(recipe)).recipe, RunDirectory(tmp_path)
    assert stage_command_of(run, 0, loaded)[3:5] == ["engine.runs.ranks", "2"]
    assert stage_command_of(run, 1, loaded)[1:4] == ["-P", "-m", "engine.stage"]
