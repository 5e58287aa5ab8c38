"""Exports of the small run (tests/small_run.py), each test with a copy of its own."""

from __future__ import annotations

import json

import pytest

from engine.export import job
from tests.small_run import copied, small_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The run's directory; nobody changes it (``run`` gives each test a copy)."""
    return small_run(tmp_path_factory)


@pytest.fixture
def run(finished, home):
    """A copy of the run in this test's home, with the answers that exports ask it for."""
    return copied(finished, home)


@pytest.fixture
def in_process(monkeypatch, finished):
    """The steps of an export in this process, which has torch loaded already; what the run says is asked once."""
    kept = finished.path / "exports" / ".reference"

    def step(request, log, progress, cancelled=lambda: False):
        from engine.backends.pytorch.export import _step

        return json.loads(json.dumps(_step(json.loads(json.dumps(request)), progress)))

    monkeypatch.setattr(job, "run_step", step)
    return kept
