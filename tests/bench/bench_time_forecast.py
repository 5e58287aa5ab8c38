"""The forecast of a stage's time against what it took: short versions of the ten library recipes on the lab.

Before the start each is forecast from the records of the other nine, and from every single one of them alone, as if that
was all the machine had ever run. Under way the log is read as the app reads it, up to the fiftieth step. Beside the
wall's seconds the process's own (``cpu_clock``): where other programs take turns on the cores, only those compare.

``python -m tests.bench.bench_time_forecast HOME`` keeps the runs there, goes on with what is missing, and tables them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from engine.forecast.duration import Duration, duration
from engine.forecast.hardware import this_machine
from engine.forecast.model import from_config
from engine.forecast.rates import RATES
from engine.forecast.settings import read_settings
from engine.forecast.workload import workload
from engine.runs.events import AlertEvent, OutlookEvent, StageEvent, StepEvent, decode, number
from engine.runs.state import RunState
from recipes.load import library, load_recipe
from tests.bench.cpu_clock import CpuClock, Sampling
from tui.eta import Eta

MODEL = "lab"
STEPS = {
    "sft": 120, "dpo": 100, "orpo": 100, "cpo": 100, "anti-hallucination": 100, "calibration": 0, "abliteration": 8,
    "grpo": 100, "steering": 0, "rlvr": 60,
}  # fmt: skip
SHORTER = ("evaluation.prompts=128", "evaluation.suite_n=100")
"""Evaluations of all but SFT's, which are as in the library: the machine has not seen the others' sizes."""
BAND = 25
SEEN, LATER = 50, 10
"""Steps after which the time left is to be within so many per cent of the stage's total."""
UNITS = {"cpu": "CPU seconds", "s": "seconds of the wall"}

Record = dict[str, Any]


# ---- running -------------------------------------------------------------------------------------------------------------


def run_all(home: Path) -> None:
    """Every recipe that is not in the home yet, one after the other, with the clock of its process."""
    environment = {**os.environ, "FINETUNE_TUI_HOME": str(home), "OMP_NUM_THREADS": "1"}
    for name, steps in STEPS.items():
        if clock_of(home, name).is_file():
            continue
        recipe = yaml.safe_load(library()[name].read_text())
        recipe["stages"] = recipe["stages"][-1:]  # the method's own; a cold start may come before
        home.mkdir(parents=True, exist_ok=True)
        (home / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
        command = [sys.executable, "-P", "-m", "tui.cli", "run", str(home / f"{name}.yaml"), "--headless"]
        command += ["--set", f"model={MODEL}"]
        command += ["--set", "threads=1"] + (["--set", f"stages.0.steps={steps}"] if steps else [])
        for setting in SHORTER if name != "sft" else ():
            command += ["--set", f"stages.0.{setting}"]
        draft = home / f"{name}.draft"
        with Sampling(home, draft):
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
        draft.rename(clock_of(home, name))


def clock_of(home: Path, name: str) -> Path:
    return home / f"{name}.clock.jsonl"


def records(home: Path) -> list[Record]:
    """The stages that were measured, in the order of their runs, each with its plan, its run and its clock."""
    found = [json.loads(line) for line in (home / RATES).read_text().splitlines()]
    for record in found:
        name = record["method"].replace("_", "-")
        run = next(iter(sorted((home / "runs").glob(f"{name}-2*"))))
        record["run"], record["clock"] = run, CpuClock.read(clock_of(home, name))
        record["work"] = workload(load_recipe(str(run / "recipe.yaml")), 0)
    return found


# ---- before the start ----------------------------------------------------------------------------------------------------


def foretold(record: Record, known: Sequence[Record], unit: str) -> Duration:
    model, settings = from_config(record["model"], record["name"]), read_settings(record["settings"])
    return duration(model, settings, this_machine(), record["work"], known, "", unit)


def off(record: Record, known: Sequence[Record], unit: str) -> float:
    """How far the forecast of a stage's total is off, in per cent."""
    return 100 * (foretold(record, known, unit).seconds / record[unit] - 1)


def inside(record: Record, one: Record, unit: str) -> bool:
    found = foretold(record, [one], unit)
    return found.low <= record[unit] <= found.high


def before_the_start(measured: Sequence[Record], unit: str) -> list[str]:
    lines, nine, alone = [], [], []
    told = 0
    for record in measured:
        others = [one for one in measured if one is not record]
        nine.append(off(record, others, unit))
        single = {one["method"]: off(record, [one], unit) for one in others}
        alone += single.values()
        told += sum(inside(record, one, unit) for one in others)
        furthest = max(single, key=lambda name: abs(single[name]))
        lines.append(
            f"| time of {record['method']} on {record['name']}: {record[unit]:.0f} {UNITS[unit]} | {nine[-1]:+.0f} % from all "
            f"others, median {statistics.median(single.values()):+.0f} % from one of them alone, furthest "
            f"{single[furthest]:+.0f} % ({furthest}) | ± {BAND} % |"
        )
    lines.append(f"| time, {UNITS[unit]}, from all other methods | {_summary(nine, BAND)} | ± {BAND} % |")
    within = f"{told} of {len(alone)} in the interval that is told"
    lines.append(f"| time, {UNITS[unit]}, from any one method alone | {_summary(alone, BAND)}; {within} | ± {BAND} % |")
    return lines


def _summary(errors: Sequence[float], band: float) -> str:
    within = sum(abs(one) <= band for one in errors)
    mean = statistics.mean(map(abs, errors))
    return f"MAE {mean:.0f} %, {min(errors):+.0f} to {max(errors):+.0f} %, {within} of {len(errors)} within"


# ---- under way -----------------------------------------------------------------------------------------------------------


def under_way(
    run: Path,
    clock: Callable[[float], float] = lambda wall: wall,
    around: dict[str, float] | None = None,
    at: int = SEEN,
) -> tuple[int, float] | None:
    """``(steps seen, how far the stage's total was off then in per cent)``: what the app would have said after ``at``
    steps, or halfway where there are fewer. None for a run that was interrupted or has no steps.

    ``clock`` turns the log's times into those that count, ``around`` stands in place of the forecast in the log.
    """
    state, eta = RunState(), Eta()
    began = ended = said = wall_began = 0.0
    seen = 0
    for line in (run / "events.jsonl").read_bytes().splitlines():
        event = decode(line)
        if event.stage:
            break  # the first stage alone
        now = clock(event.time)
        if isinstance(event, StepEvent) and "seconds" in event.values:
            event.values["seconds"] = now - clock(event.time - number(event.values["seconds"]))
        if isinstance(event, AlertEvent) and event.code == "forecast" and around is not None:
            event.detail = {"time_s": {"around": around}}
        if isinstance(event, OutlookEvent):  # in seconds of the wall: what share of them was the process's own so far?
            share = (now - began) / (event.time - wall_began)
            event.around = {when: share * seconds for when, seconds in event.around.items()}
        if isinstance(event, StageEvent) and event.state == "started":
            wall_began = event.time
        event.time = now
        state.apply(event)
        eta.apply(event)
        if isinstance(event, StageEvent) and event.state == "started":
            if seen or began:
                return None
            began = now
        elif isinstance(event, StageEvent) and event.state == "done":
            ended = now
        elif isinstance(event, StepEvent) and not seen and event.step >= min(at, event.total // 2):
            left = eta.left(state, now)[0]
            if left is not None:
                seen, said = event.step, now - began + left
    return (seen, 100 * (said / (ended - began) - 1)) if seen and ended else None


def told_under_way(measured: Sequence[Record], unit: str) -> list[str]:
    lines, errors = [], []
    for number_, record in enumerate(measured):
        if unit == "s":
            found = under_way(record["run"])
        else:  # forecast in the same seconds, from what the machine knew then
            found = under_way(record["run"], record["clock"], foretold(record, measured[:number_], unit).around)
        if found is None:
            continue
        errors.append(found[1])
        lines.append(
            f"| time of {record['method']} after {found[0]} steps: the stage's total, {UNITS[unit]} | {found[1]:+.0f} % "
            f"| ± {LATER} % |"
        )
    if errors:
        lines.append(f"| time, {UNITS[unit]}, once steps were seen | {_summary(errors, LATER)} | ± {LATER} % |")
    return lines


# ---- the table -----------------------------------------------------------------------------------------------------------


def table(home: Path) -> list[str]:
    measured = records(home)
    return [line for unit in UNITS for line in [*before_the_start(measured, unit), *told_under_way(measured, unit)]]


def rows() -> list[str]:
    with tempfile.TemporaryDirectory() as home:
        run_all(Path(home))
        return table(Path(home))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        run_all(Path(sys.argv[1]))
        print("\n".join(table(Path(sys.argv[1]))))
    else:
        print("\n".join(rows()))
