"""Runs that outlive the benchmark that started them: each in a home of its own, finished at most once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.forecast.rates import RATES
from engine.runs.directory import RunDirectory
from engine.runs.exitcodes import DONE, GATE_FAILED


def run_to_end(home: Path, recipe: str, settings: Sequence[str]) -> RunDirectory:
    """The finished run in ``home``; one that was interrupted there is resumed, and started where there is none.

    A gate that failed ends a run as well. Raises SystemExit with the last words of a run that ends in any other way.
    """
    run = finished(home)
    if run is not None:
        return run
    started = (home / "runs").is_dir() and any((home / "runs").iterdir())
    words = ["resume"] if started else ["run", recipe, *(word for one in settings for word in ("--set", one))]
    print(f"{home.name}: {' '.join(words)}", file=sys.stderr, flush=True)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tui.cli", *words, "--headless"],
        env={**os.environ, "FINETUNE_TUI_HOME": str(home), "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    run = finished(home)
    if run is None:
        raise SystemExit(f"{home.name}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return run


def finished(home: Path) -> RunDirectory | None:
    """The newest run of a home that came to its end, passed or not; None if none did."""
    runs = [RunDirectory(path) for path in sorted((home / "runs").glob("*")) if (path / "events.jsonl").is_file()]
    done = [run for run in runs if run.state().code in (DONE, GATE_FAILED)]
    return done[-1] if done else None


def seconds(home: Path) -> tuple[float, float]:
    """Of all stages that ended in a home: seconds of the wall, and of the processors."""
    path = home / RATES
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return sum(record["s"] for record in records), sum(record["cpu"] for record in records)
