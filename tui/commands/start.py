"""demo, run, resume, attach: begin or carry on, and watch."""

from __future__ import annotations

import argparse
import json
import sys

from engine.runs.create import create_run
from engine.runs.directory import RunDirectory, find_run, status
from engine.runs.launch import ensure_resumable, start_supervisor
from recipes.load import load_recipe
from tui.fetching import Fetching
from tui.monitor import watch
from tui.words import warning_sign


def demo(options: argparse.Namespace) -> int:
    """A library recipe on the lab model, with nothing to set up."""
    return run(options)


def run(options: argparse.Namespace) -> int:
    fetching = Fetching()
    loaded = load_recipe(options.recipe, options.overrides)
    if sys.stderr.isatty() and any(getattr(stage, "verifier", None) for stage in loaded.recipe.stages):
        print("trying the verifiers on their own answers …", file=sys.stderr)  # a user's own may take minutes
    try:
        created = create_run(loaded, fetching.told)
    finally:
        fetching.close()
    if not options.json:
        for index, prepared in enumerate(created.prepared):
            for warning in prepared.warnings:
                print(f"{warning_sign()} stage {index + 1} data: {warning}")
    start_supervisor(created.run, now=options.now)
    return _follow(created.run, options, "started")


def resume(options: argparse.Namespace) -> int:
    found = find_run(options.run)
    ensure_resumable(found, options.accept_changed_data)
    start_supervisor(found, now=options.now)
    return _follow(found, options, "resumed")


def attach(options: argparse.Namespace) -> int:
    options.detach = False
    return _follow(find_run(options.run), options, "attached")


def _follow(found: RunDirectory, options: argparse.Namespace, did: str) -> int:
    if options.detach:
        if options.json:
            print(json.dumps({"id": found.id, "did": did, "path": str(found.path)}))
        else:
            print(f"{did} {found.id} in the background; `finetune-tui attach {found.id}` watches it")
        return 0
    if options.json:
        return watch(found, out=sys.stdout, style="json")
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if terminal and not options.headless:
        return _watch_in_app(found)
    if did == "attached" and status(found, found.state()) == "interrupted":
        print(f"{found.id} is not running (interrupted); `finetune-tui resume {found.id}` carries on")
    return watch(found, out=sys.stdout, style="live" if sys.stdout.isatty() else "plain")


def _watch_in_app(found: RunDirectory) -> int:
    """Open the app on the run; afterwards say where it stands. The run's exit code if it has ended, else 0."""
    from tui.app import open_app
    from tui.view.run_view import status_words

    open_app(found.id)
    state = found.state()
    now = status(found, state)
    words = status_words(state, now)
    print(f"{found.id}: {now}{', ' if words else ''}{words}")
    if now in ("running", "queued"):
        print(f"it goes on in the background; `finetune-tui attach {found.id}` comes back to it")
        return 0
    return 0 if state.code is None else state.code
