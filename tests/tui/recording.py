"""Runs on paper: the event log of a real demo run, whole or up to a moment, in a home of the test's own."""

from __future__ import annotations

import shutil
from pathlib import Path

from engine.runs.directory import RunDirectory, runs_folder
from engine.runs.events import decode

RECORDED = Path(__file__).with_name("recorded")
RUN_ID = "base-alignment-20261123-200456-4bf2"


def recorded_run(until=None, run_id=RUN_ID, more=b""):
    """The run, its log cut after the first event for which ``until`` is true, then ``more``."""
    folder = runs_folder() / run_id
    folder.mkdir(parents=True)
    shutil.copyfile(RECORDED / "recipe.yaml", folder / "recipe.yaml")
    (folder / "logs").mkdir()
    (folder / "control").mkdir()
    kept = b""
    for line in (RECORDED / "base-alignment.jsonl").read_bytes().splitlines(keepends=True):
        kept += line
        if until is not None and until(decode(line)):
            break
    run = RunDirectory(folder)
    run.events.write_bytes(kept + more)
    return run


def in_the_middle(event):
    """Step 60 of the second stage."""
    return getattr(event, "step", 0) == 60 and event.stage == 1 and type(event).__name__ == "StepEvent"
