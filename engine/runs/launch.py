"""Start or resume a run in the background, and speak to it."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

from engine.runs import control
from engine.runs.create import changed_sources
from engine.runs.directory import RunDirectory, status
from engine.runs.exitcodes import HELD
from engine.runs.lock import LockHeld, held, read_holder
from recipes.errors import InputError, Problem

START_TIMEOUT = 30.0


class NotStarted(Exception):
    """The supervisor did not come up; the message has its last words."""


def start_supervisor(run: RunDirectory, now: bool = False) -> None:
    """Start the supervisor detached, and return when it holds the run. Raises LockHeld or NotStarted."""
    if held(run.lock):
        raise LockHeld(run.lock, read_holder(run.lock))
    run.logs.mkdir(exist_ok=True)
    log = run.logs / "supervisor.log"
    before = run.events.stat().st_size
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "engine.runs.supervisor", str(run.path), *(["--now"] if now else [])],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=run.path,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        told = run.events.stat().st_size > before
        holder = read_holder(run.lock)
        if told and holder is not None and holder.pid == process.pid:  # not somebody else's events
            return
        code = process.poll()
        if code == HELD:  # another was faster
            raise LockHeld(run.lock, holder)
        if code is not None:
            if told:  # it has already come to its end
                return
            break
        time.sleep(0.02)
    words = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    raise NotStarted(f"the run did not start: {words[-1] if words else 'no word from it'} (see {log})")


def ensure_resumable(run: RunDirectory, accept_changed_data: bool = False) -> None:
    """Raises LockHeld if somebody works on the run, InputError if there is nothing to resume or its data changed."""
    if held(run.lock):
        raise LockHeld(run.lock, read_holder(run.lock))
    state = run.state()
    if state.status == "done":
        raise InputError(
            [Problem(run.id, None, None, "a run that is done", "one that was interrupted, paused or stopped")]
        )
    if not accept_changed_data:
        changed = changed_sources(run)
        if changed:
            accepted = "the data that the run started with; `--accept-changed-data` goes on with the rows that it kept from then"
            raise InputError(
                [Problem(run.id, None, "data", f"{', '.join(changed)} changed since the run started", accepted)]
            )


def command(run: RunDirectory, word: str, timeout: float = 15.0) -> dict[str, Any]:
    """Send ``pause`` or ``stop`` and wait until an event acknowledges it. Raises InputError if nobody listens."""
    now = status(run, run.state())
    if not held(run.lock):
        raise InputError([Problem(run.id, None, None, f"a run that is {now}", f"a run that is running, to {word} it")])
    sent = control.send(run.control, {"command": word})
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        for alert in reversed(run.state().alerts):
            if alert.code == "control" and alert.detail.get("id") == sent:
                return {"run": run.id, "command": word, "says": alert.text}
        time.sleep(0.1)
    return {"run": run.id, "command": word, "says": f"not acknowledged within {timeout:.0f} s; it is kept until it is"}
