"""A run is followed from its log: a long one is looked through first, and read step by step after it."""

from __future__ import annotations

import queue

import pytest

from engine.runs.directory import RunDirectory
from engine.runs.events import RunEvent, StageEvent, StepEvent
from engine.runs.log import EventLog
from tui import follow
from tui.follow import Follower


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "runs" / "long-run")
    run.path.mkdir(parents=True)
    log = EventLog(run.events)
    log.append(RunEvent(state="created", detail={"name": "x", "stages": [{"method": "sft", "steps": 5000}]}))
    log.append(StageEvent(state="started", method="sft", stage=0, steps_total=5000))
    for step in range(1, 5001):
        log.append(StepEvent(stage=0, step=step, total=5000, values={"loss": 5000.0 / step}))
    log.append(StageEvent(state="done", method="sft", stage=0, steps_total=5000, passed=True))
    log.append(RunEvent(state="done", code=0))
    log.close()
    return run


def told(run):
    """The views until every event has been read."""
    updates = queue.SimpleQueue()
    follower = Follower(run, updates.put)
    follower.start()
    views = []
    try:
        while not views or follower.shown.last_seq < 5004 or follower.shown is not follower.state:
            views.append(updates.get(timeout=60).view)
    finally:
        follower.stop()
    return views


def test_how_a_run_stands_is_shown_before_its_long_log_is_read(run, monkeypatch):
    (whole,) = told(run)
    monkeypatch.setattr(follow, "LONG", 1000)
    first, *_, last = told(run)
    assert last.charts == whole.charts and last.rail == whole.rail and last.status == whole.status
    assert (first.status, first.rail) == (whole.status, whole.rail)
    assert first.charts[0].values[-1] == 1.0 and len(first.charts[0].steps) < len(last.charts[0].steps)
