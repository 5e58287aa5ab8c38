"""What the keys do to a run, off the screen's thread: each returns words to show, or raises with words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from engine.runs.directory import RunDirectory

if TYPE_CHECKING:
    from recipes.load import LoadedRecipe


class Refused(Exception):
    """It cannot be done; the message says why and what would help."""


def do(word: str, run: RunDirectory) -> str:
    """``pause``, ``stop``, ``resume`` or ``remove`` a run."""
    from engine.runs.launch import NotStarted, command, ensure_resumable, start_supervisor
    from engine.runs.lock import LockHeld
    from recipes.errors import InputError

    try:
        if word == "resume":
            ensure_resumable(run)
            start_supervisor(run)
            return f"{run.id} carries on"
        if word == "remove":
            from engine.runs.remove import remove

            remove(run)
            return f"removed {run.id}"
        return f"{run.id}: {command(run, word)['says']}"
    except (InputError, LockHeld, NotStarted) as error:
        raise Refused(str(error)) from error


def start_demo() -> RunDirectory:
    """Create and start the demo run."""
    from recipes.load import load_recipe

    return _start(lambda: load_recipe("base-alignment"))


def start_text(text: str, folder: Path) -> RunDirectory:
    """Create and start a run of a recipe that lies in no file; ``folder`` is where its relative paths begin."""
    from recipes.load import parse_recipe

    return _start(lambda: parse_recipe(text, folder))


def _start(load: Callable[[], LoadedRecipe]) -> RunDirectory:
    from engine.forecast.trace import cancel_running
    from engine.runs.create import create_run
    from engine.runs.launch import NotStarted, start_supervisor
    from recipes.errors import InputError

    cancel_running()  # its memory is wanted for the run
    try:
        run = create_run(load()).run
        start_supervisor(run)
    except (InputError, NotStarted) as error:
        raise Refused(str(error)) from error
    return run
