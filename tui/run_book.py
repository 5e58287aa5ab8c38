"""All runs and how they stand, read again and again without reading any log twice."""

from __future__ import annotations

import time
from dataclasses import dataclass

from engine.report import clock
from engine.runs.directory import RunDirectory, list_runs, status
from engine.runs.log import Tail
from engine.runs.state import RunState
from tui.view.run_view import resumable, status_words

BREATH = 0.0005
"""Seconds given to the screen between two pieces of a long log."""


@dataclass(frozen=True)
class RunLine:
    run: RunDirectory
    status: str
    words: str
    stages: str
    created: str
    passed: bool
    can_resume: bool
    why_not: str


class RunBook:
    """Not thread-safe: one thread reads."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[Tail, RunState]] = {}

    def lines(self) -> list[RunLine]:
        """Newest first."""
        return [self._line(run) for run in reversed(list_runs())]

    def _line(self, run: RunDirectory) -> RunLine:
        tail, state = self._read.setdefault(run.id, (Tail(run.events), RunState()))
        while events := tail.skim():
            state.apply_all(events)
            time.sleep(BREATH)
        now = status(run, state)
        can, why_not = resumable(state, now)
        return RunLine(
            run=run,
            status=now,
            words=status_words(state, now),
            stages=" → ".join(stage.method for stage in state.stages),
            created=clock(state.created)[:16],
            passed=now == "done" and state.code == 0,
            can_resume=can,
            why_not=why_not,
        )
