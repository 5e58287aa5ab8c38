"""The forecast of a stage's time against what it took: short versions of the ten library recipes on the lab.

Each is forecast from the records of the other nine, from SFT's alone and from DPO's alone, as if that was all the machine
had ever run. Beside the wall's seconds the process's own: where other programs take turns on the cores, only those
compare. ``python -m tests.bench.bench_time_forecast HOME`` tables the runs that are in a home already.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from engine.forecast.duration import duration
from engine.forecast.hardware import this_machine
from engine.forecast.model import from_config
from engine.forecast.rates import RATES
from engine.forecast.settings import read_settings
from engine.forecast.workload import workload
from recipes.load import load_recipe

MODEL = "lab"
STEPS = {
    "sft": 60, "dpo": 30, "orpo": 30, "cpo": 30, "grpo": 20, "rlvr": 10, "anti-hallucination": 40, "calibration": 0,
    "abliteration": 4, "steering": 0,
}  # fmt: skip
BAND = 25


def run_all(home: str) -> None:
    environment = {**os.environ, "FINETUNE_TUI_HOME": home, "OMP_NUM_THREADS": "1"}
    for name, steps in STEPS.items():
        command = [sys.executable, "-P", "-m", "tui.cli", "run", name, "--headless", "--set", f"model={MODEL}"]
        last = len(load_recipe(name).recipe.stages) - 1  # a cold start may stand before it
        command += ["--set", "threads=1"] + (["--set", f"stages.{last}.steps={steps}"] if steps else [])
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)


def records(home: Path) -> list[dict[str, Any]]:
    """The stages that were measured, each with its plan."""
    found = [json.loads(line) for line in (home / RATES).read_text().splitlines()]
    first: dict[str, dict[str, Any]] = {}
    for record in found:  # each method once: the cold start of another's recipe is left out
        first.setdefault(record["method"], record)
    for method, record in first.items():
        run = next(iter(sorted((home / "runs").glob(f"{method.replace('_', '-')}-2*"))))
        loaded = load_recipe(str(run / "recipe.yaml"))
        record["work"] = workload(loaded, len(loaded.recipe.stages) - 1)
    return list(first.values())


def off(record: dict[str, Any], known: list[dict[str, Any]], unit: str) -> float:
    """How far the forecast of a stage's total is off, in per cent."""
    model, settings = from_config(record["model"], record["name"]), read_settings(record["settings"])
    found = duration(model, settings, this_machine(), record["work"], known, "", unit)
    return 100 * (found.seconds / record[unit] - 1)


def table(home: Path) -> list[str]:
    measured, lines = records(home), []
    columns: dict[str, list[float]] = {}
    for unit, called in (("cpu", "CPU seconds"), ("s", "seconds of the wall")):
        for record in measured:
            line = [f"time of {record['method']} on {record['name']}: {record[unit]:.0f} {called}"]
            others = [one for one in measured if one is not record]
            for label, known in (
                ("the other nine", others),
                ("SFT", [one for one in others if one["method"] == "sft"]),
                ("DPO", [one for one in others if one["method"] == "dpo"]),
            ):
                if known:
                    columns.setdefault(f"{called}, after {label}", []).append(off(record, known, unit))
                    line.append(f"{columns[f'{called}, after {label}'][-1]:+.0f} % after {label}")
            lines.append(f"| {', '.join(line)} | ± {BAND} % |")
        for label, errors in columns.items():
            if label.startswith(called):
                mean = sum(map(abs, errors)) / len(errors)
                within = sum(abs(one) <= BAND for one in errors)
                lines.append(
                    f"| time, {label} | MAE {mean:.0f} %, {min(errors):+.0f} to {max(errors):+.0f} %, "
                    f"{within} of {len(errors)} within | ± {BAND} % |"
                )
    return [f"| {line.strip('| ')} |" if not line.startswith("|") else line for line in lines]


def rows() -> list[str]:
    with tempfile.TemporaryDirectory() as home:
        run_all(home)
        return table(Path(home))


if __name__ == "__main__":
    print("\n".join(table(Path(sys.argv[1])) if len(sys.argv) > 1 else rows()))
