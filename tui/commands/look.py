"""runs, show, logs: what there is and how it stands."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from typing import Any

from engine.models.lineage import newest_lineage
from engine.report import clock, duration, figure, gate_value, limit_words
from engine.runs.directory import RunDirectory, find_run, list_runs, status
from engine.runs.state import RunState, StageState
from tui.view.plan import planned_of
from tui.words import passed_sign


def runs(options: argparse.Namespace) -> int:
    found = [(run, run.state()) for run in list_runs()]
    if options.json:
        print(json.dumps([brief(run, state) for run, state in found]))
        return 0
    if not found:
        print("no runs yet; `finetune-tui demo` trains the lab model, `finetune-tui run RECIPE` runs a recipe of yours")
        return 0
    width = max(len(run.id) for run, _ in found)
    for run, state in reversed(found):
        print(f"{run.id:<{width}}  {status(run, state):<11}  {progress_words(state):<28}  {clock(state.created)}")
    return 0


def brief(run: RunDirectory, state: RunState) -> dict[str, Any]:
    """One run in a list."""
    return {
        "id": run.id,
        "name": state.name,
        "status": status(run, state),
        "reason": state.reason,
        "code": state.code,
        "created": state.created,
        "stages": [{"method": stage.method, "status": stage.status} for stage in state.stages],
    }


def details(run: RunDirectory) -> dict[str, Any]:
    """What ``show --json`` prints."""
    state = run.state()
    lineage = newest_lineage(run, len(state.stages))
    return {
        **brief(run, state),
        "path": str(run.path),
        "started": state.started,
        "ended": state.ended,
        "stages": state.stages_to_json(),
        "alerts": [{"level": alert.level, "code": alert.code, "text": alert.text} for alert in state.alerts],
        "forecast": [asdict(one) for one in planned_of(state, state.ended or time.time(), None)],
        "lineage": None if lineage is None else lineage.to_json(),
    }


def show(options: argparse.Namespace) -> int:
    run = find_run(options.run)
    if options.json:
        print(json.dumps(details(run), default=str))
        return 0
    state = run.state()
    print(f"{run.id}: {status(run, state)}" + (f" ({state.reason})" if state.reason else ""))
    print(f"  {run.path}")
    for stage in state.stages:
        print()
        for line in stage_lines(stage):
            print(line)
    for line in forecast_lines(state):
        print(line)
    warnings = [alert for alert in state.alerts if alert.level != "info"]
    if warnings:
        print()
    for alert in warnings:
        print(f"  {clock(alert.time)} {alert.level}: {alert.text}")
    if run.report.exists():
        print(f"\nreport: {run.report}")
    return 0


def forecast_lines(state: RunState) -> list[str]:
    """What each stage was said to need when it began, and what it took."""
    lines = []
    for stage in planned_of(state, state.ended or time.time(), None):
        memory, seconds = stage.memory, stage.seconds
        parts = []
        if memory.low is not None and memory.high is not None:
            took = "" if memory.actual is None else f", took {memory.actual:.0f} ({memory.word})"
            parts.append(f"{memory.low:.0f} to {memory.high:.0f} MiB{took}")
        if seconds.low is not None and seconds.high is not None:
            took = "" if seconds.actual is None else f", took {duration(seconds.actual)} ({seconds.word})"
            parts.append(f"{duration(seconds.low)} to {duration(seconds.high)}{took}")
        if parts:
            lines.append(f"   {stage.index + 1} {stage.method}: {'; '.join(parts)}")
    return ["", "forecast and actual", *lines] if lines else []


def stage_lines(stage: StageState) -> list[str]:
    """A stage with its figures before and after and its gates."""
    took = f", {duration(stage.ended - stage.started)}" if stage.started and stage.ended else ""
    lines = [f"{stage.index + 1}. {stage.method}: {stage.status}, {stage.steps_done}/{stage.steps_total} steps{took}"]
    for gate in stage.gates.values():
        detail = f"  {gate.detail}" if gate.detail else ""
        sign = passed_sign(gate.passed)
        lines.append(f"   {sign} {gate.name:<22} {gate_value(gate):>9}  {limit_words(gate)}  n {gate.n}{detail}")
    for name, found in sorted(stage.metrics.items()):
        before, latest = found.get("before"), stage.latest(name)
        if latest is None:
            continue
        from_before = f"{figure(float(before.value))} -> " if before is not None and latest is not before else ""
        interval = ""
        if latest.low is not None and latest.high is not None:
            interval = f"  [{figure(float(latest.low))}, {figure(float(latest.high))}]"
        lines.append(f"     {name:<22} {from_before}{figure(float(latest.value))}{interval}  n {latest.n}")
    return lines


def progress_words(state: RunState) -> str:
    """``2/2 dpo 40/80 steps`` or how it ended."""
    if state.status == "done":
        return "gates passed" if state.code == 0 else "a gate failed"
    stage = state.current
    if stage is None:
        return ""
    return f"{stage.index + 1}/{len(state.stages)} {stage.method} {stage.steps_done}/{stage.steps_total} steps"


def logs(options: argparse.Namespace) -> int:
    run = find_run(options.run)
    found = {}
    for path in sorted(run.logs.glob("*.log")):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        found[path.name] = lines[-options.lines :]
    if options.json:
        print(json.dumps(found))
        return 0
    if not found:
        print(f"{run.id} has printed nothing yet ({time.strftime('%H:%M:%S')})")
    for name, lines in found.items():
        print(f"==> {run.logs / name}")
        print("\n".join(lines))
    return 0
