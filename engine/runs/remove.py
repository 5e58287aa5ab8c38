"""Remove a run and everything it wrote."""

from __future__ import annotations

import shutil

from engine.runs.directory import RunDirectory
from engine.runs.lock import held
from recipes.errors import InputError, Problem


def remove(run: RunDirectory) -> None:
    """Raises InputError if somebody works on it."""
    if held(run.lock):
        accepted = f"a run that is not running; `finetune-tui stop {run.id}` first"
        raise InputError([Problem(run.id, None, None, "a run that is running", accepted)])
    doomed = run.path.with_name(f".removed-{run.id}")
    run.path.rename(doomed)  # gone from the list at once, whatever happens while its files are removed
    shutil.rmtree(doomed)
