"""What the keys do to a run, off the screen's thread: each returns words to show, or raises with words."""

from __future__ import annotations

from engine.runs.directory import RunDirectory


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
    from engine.runs.create import create_run
    from engine.runs.launch import NotStarted, start_supervisor
    from recipes.errors import InputError
    from recipes.load import load_recipe

    try:
        run = create_run(load_recipe("base-alignment")).run
        start_supervisor(run)
    except (InputError, NotStarted) as error:
        raise Refused(str(error)) from error
    return run
