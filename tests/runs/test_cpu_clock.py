"""The processor's clock of the forecast's benchmark (tests/bench/cpu_clock.py)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.bench.cpu_clock import CpuClock, Sampling

SAMPLES = [(100.0, 7, 0.0), (101.0, 7, 1.0), (103.0, 7, 1.0), (104.0, 7, 2.0), (110.0, 8, 0.5), (111.0, 8, 1.5)]


@pytest.mark.parametrize(
    ("wall", "seconds"),
    [(99, 0.0), (100.5, 0.5), (102, 1.0), (103.5, 1.5), (104, 2.0), (110, 2.5), (110.5, 3.0), (200, 3.5)],
)
def test_the_clock_stands_while_others_compute_and_goes_on_with_the_next_process(wall, seconds):
    assert CpuClock(SAMPLES)(wall) == pytest.approx(seconds)


def test_a_stage_below_the_home_is_sampled_and_nobody_else(tmp_path):
    # The words of a stage's command line, around a program that computes until its input ends.
    busy = "import select, sys\nwhile not select.select([sys.stdin], [], [], 0)[0]: sum(range(10**5))"
    path = tmp_path / "clock.jsonl"
    mine, other = (
        subprocess.Popen([sys.executable, "-c", busy, "engine.stage", str(folder / "run")], stdin=subprocess.PIPE)
        for folder in (tmp_path / "home", tmp_path / "elsewhere")
    )
    try:
        with Sampling(tmp_path / "home", path):
            while not path.is_file() or path.stat().st_size < 200:
                assert mine.poll() is None and other.poll() is None
    finally:
        for process in (mine, other):
            process.communicate()
    read = [line.split(", ")[1] for line in path.read_text().splitlines()]
    assert set(read) == {str(mine.pid)}
    clock = CpuClock.read(path)
    assert clock(1e12) > 0
