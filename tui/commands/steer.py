"""pause, stop, rm: what ends a run, for now or for good."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from engine.runs.directory import find_run
from engine.runs.launch import command
from engine.runs.lock import held
from engine.runs.remove import remove
from recipes.errors import InputError, Problem


def pause(options: argparse.Namespace) -> int:
    return _told(options, command(find_run(options.run), "pause"))


def stop(options: argparse.Namespace) -> int:
    return _told(options, command(find_run(options.run), "stop"))


def _told(options: argparse.Namespace, answer: dict[str, Any]) -> int:
    print(json.dumps(answer) if options.json else f"{answer['run']}: {answer['says']}")
    return 0


def rm(options: argparse.Namespace) -> int:
    run = find_run(options.run)
    if not options.yes and not held(run.lock):
        if not sys.stdin.isatty():
            raise InputError([Problem("rm", None, None, "no terminal to ask on", "`--yes` to remove without asking")])
        if input(f"remove {run.id} and everything it wrote, checkpoints and outputs included? [y/N] ").lower() != "y":
            print("kept")
            return 0
    remove(run)
    print(json.dumps({"removed": run.id}) if options.json else f"removed {run.id}")
    return 0
