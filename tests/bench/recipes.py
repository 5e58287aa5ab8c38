"""The library's recipes in full on the lab, each a real run: hours on two cores.

    python -m tests.bench.recipes FOLDER [--backend mlx] [NAME …]

Runs are kept in FOLDER (a home of the app's own for each recipe): what is finished there is not run again, and what was
interrupted is resumed. Prints a row of the README's table for each, and ends with 1 if a gate failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from engine.runs.directory import RunDirectory
from engine.runs.state import StageState

NAMES = ("sft", "dpo", "orpo", "cpo", "grpo", "rlvr", "calibration", "anti-hallucination", "abliteration", "steering")


def run(name: str, backend: str, folder: Path) -> RunDirectory:
    """The finished run of that recipe, running it first where there is none. Raises SystemExit if it fails."""
    home = folder / f"{name}-{backend}"
    environment = {**os.environ, "FINETUNE_TUI_HOME": str(home)}
    environment.setdefault("OMP_NUM_THREADS", "1")
    words = ["resume"] if runs(home) else ["run", name, "--set", f"backend={backend}"]
    if not any(one.state().status == "done" for one in runs(home)):
        command = [sys.executable, "-P", "-m", "tui.cli", *words, "--headless"]
        done = subprocess.run(command, env=environment, stdout=sys.stderr, check=False)
        if done.returncode not in (0, 3):
            raise SystemExit(f"{name} on {backend}: exit {done.returncode}, see above; it is in {home}")
    return next(one for one in runs(home) if one.state().status == "done")


def runs(home: Path) -> list[RunDirectory]:
    return [RunDirectory(path) for path in sorted((home / "runs").glob("*"))]


def row(name: str, stage: StageState) -> str:
    """What was measured against each of the stage's gates, as a line of a table."""
    said = []
    for gate in stage.gates.values():
        limits = [f"≥ {gate.min}"] * (gate.min is not None) + [f"≤ {gate.max}"] * (gate.max is not None)
        more = f"; {gate.detail}" if gate.detail else ""
        said.append(
            f"{'✓' if gate.passed else '✗'} {gate.name} {gate.value:.4g} ({', '.join(limits)}; n {gate.n}{more})"
        )
    return f"| `{name}` | {' · '.join(said)} |"


def main() -> int:
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("folder", type=Path)
    reader.add_argument("--backend", choices=("pytorch", "mlx"), default="pytorch")
    reader.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(NAMES)}; all when left out")
    asked = reader.parse_args()
    passed = True
    print(f"| method | measured on {asked.backend} |\n|---|---|")
    for name in asked.names or NAMES:
        for stage in run(name, asked.backend, asked.folder).state().stages:
            passed = passed and all(gate.passed for gate in stage.gates.values())
            print(row(name, stage), flush=True)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
