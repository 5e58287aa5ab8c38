"""Reading the runs that are compared, again and again without reading any log twice."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from engine.runs.directory import RunDirectory, find_run, status
from engine.runs.log import Tail
from engine.runs.state import RunState
from recipes.errors import InputError, Problem
from tui.view.comparison import MOST, Compared

CHUNK = 1 << 19
BREATH = 0.002
"""Seconds given to the screen between two chunks of a long log."""


def find_runs(words: Sequence[str]) -> list[RunDirectory]:
    """At least two different runs, at most as many as there are signs for. Raises InputError."""
    runs = list({run.id: run for run in map(find_run, words)}.values())
    if not 2 <= len(runs) <= MOST:
        found = "one run" if len(runs) == 1 else f"{len(runs)} runs"
        raise InputError(
            [Problem("RUN…", None, None, found, f"2 to {MOST} different runs; `finetune-tui runs` lists them")]
        )
    return runs


class Reader:
    """Not thread-safe: one thread reads."""

    def __init__(self, runs: Sequence[RunDirectory]) -> None:
        self._read = [(run, Tail(run.events), RunState(), _recipe(run)) for run in runs]

    def read(self) -> tuple[list[Compared], bool]:
        """The runs as they stand, and whether anything came in."""
        news = False
        found = []
        for run, tail, state, recipe in self._read:
            while events := tail.read(CHUNK):
                news = True
                state.apply_all(events)
                time.sleep(BREATH)
            found.append(Compared(run.id, status(run, state), state, recipe))
        return found, news


def _recipe(run: RunDirectory) -> dict[str, Any]:
    """As resolved, without what every recipe has of its own."""
    import yaml

    try:
        raw = yaml.safe_load(run.recipe.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    return raw if isinstance(raw, dict) else {}
