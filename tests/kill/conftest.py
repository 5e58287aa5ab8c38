"""Kills of a short two-stage recipe on lab-nano."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from engine.runs.directory import RunDirectory
from tests.real_run import COMMAND, RECIPE, Real, Warm  # noqa: F401


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory):
    """The run that nothing happens to; made once, by the first of the test processes that needs it."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    real = Real(shared / "uninterrupted")
    with open(real.home / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = real.home / "made"
        if made.is_file():
            real.run = RunDirectory(Path(made.read_text()))
        else:
            real.run_here()
            made.write_text(str(real.run.path))
    return real


@pytest.fixture
def real(tmp_path):
    made = Real(tmp_path / "home")
    yield made
    made.end()


@pytest.fixture
def warm(warm_process, tmp_path):
    made = Warm(warm_process, tmp_path / "warm")
    yield made
    made.end()
