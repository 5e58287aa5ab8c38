"""report.md: what was asked, what happened, what was measured before and after."""

from __future__ import annotations

import json
from typing import Any

from engine.account import (
    clock,
    duration,
    figure,
    forecast_words,
    gate_table,
    gate_value,
    limit_words,
    metric_table,
    sample_words,
)
from engine.evaluate.calibration import diagram
from engine.models.lineage import newest_lineage
from engine.runs.directory import RunDirectory
from engine.runs.events import MetricEvent
from engine.runs.exitcodes import WORDS
from engine.runs.files import write_atomically
from engine.runs.state import RunState, StageState

__all__ = ["clock", "duration", "figure", "gate_value", "limit_words", "write_report"]


def write_report(run: RunDirectory) -> None:
    """Write the run's report from its event log; written again at every end, so it is never older than the run."""
    state = run.state()
    parts = [
        f"# {run.id}",
        _outcome(state),
        "## What was asked",
        "```yaml\n" + run.recipe.read_text(encoding="utf-8").strip() + "\n```",
        "## What happened",
        _course(state),
        *(_stage(state, stage) for stage in state.stages),
        "## What it gives",
        _lineage(run, state),
        "## The same again",
        _again(run, state),
    ]
    write_atomically(run.report, "\n\n".join(part for part in parts if part) + "\n")


def _outcome(state: RunState) -> str:
    words = {"done": "**Done", "failed": "**Failed", "paused": "**Paused", "stopped": "**Stopped"}
    head = words.get(state.status, f"**{state.status.capitalize()}")
    if state.status == "done":
        head += ", all gates passed" if state.code == 0 else ", but a gate failed"
    return f"{head}.** {state.reason}".strip()


def _course(state: RunState) -> str:
    lines = [f"- Model `{state.detail.get('model')}`, {clock(state.created)} to {clock(state.ended)}."]
    versions = state.detail.get("versions", {})
    lines.append("- " + ", ".join(f"{name} {number}" for name, number in versions.items()) + ".")
    for stage in state.stages:
        took = duration((stage.ended or 0) - (stage.started or 0)) if stage.started and stage.ended else "not finished"
        attempts = f", {stage.attempts} starts" if stage.attempts > 1 else ""
        done = f"{stage.steps_done} of {stage.steps_total} steps"
        lines.append(f"- Stage {stage.index + 1}, {stage.method}: {stage.status}, {done}, {took}{attempts}.")
    crashes = [event for event in state.exits if event.signal is not None or event.code not in WORDS]
    lines += [f"- {clock(event.time)} {event.process}: {event.reason}." for event in crashes]
    lines += [
        f"- {clock(alert.time)} {alert.level}: {alert.text}"
        for alert in state.alerts
        if alert.level in ("warning", "error")
    ]
    return "\n".join(lines)


def _stage(state: RunState, stage: StageState) -> str:
    if not stage.metrics and not stage.gates:
        return ""
    parts = [f"## Stage {stage.index + 1}: {stage.method}", gate_table(stage), metric_table(stage)]
    parts += _reliability(stage)
    for found in stage.metrics.values():
        latest = found.get("after") or found.get("before")
        if latest is not None and latest.detail.get("table"):
            parts.append(_table(latest))
    parts += [forecast_words(state, stage), sample_words(stage)]
    return "\n\n".join(part for part in parts if part)


def _reliability(stage: StageState) -> list[str]:
    """The reliability diagrams before and after, where the stage measured them."""
    parts = []
    for when, found in stage.metrics.get("ece", {}).items():
        if bins := found.detail.get("bins"):
            parts += [f"Reliability {when} (a bin a line; the bar is the share right, `|` the stated confidence):"]
            parts += ["```\n" + "\n".join(diagram(bins)) + "\n```"]
    return parts


def _table(metric: MetricEvent) -> str:
    """What a measurement is made of, as a table: the trials of a Pareto front, the shares of each persona."""
    rows = metric.detail["table"]
    cells = [[figure(value) if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    lines = [f"| {' | '.join(rows[0])} |", "|" + "---|" * len(rows[0])]
    lines += [f"| {' | '.join(row)} |" for row in cells]
    return f"{metric.detail.get('says', metric.name)}:\n\n" + "\n".join(lines)


def _lineage(run: RunDirectory, state: RunState) -> str:
    lineage = newest_lineage(run, len(state.stages))
    if lineage is None:
        return "Nothing yet."
    revision = f", revision {lineage.base.revision}" if lineage.base.revision else ""
    lines = [f"- Base `{lineage.base.id}`{revision}, never modified: `{lineage.base.path}`."]
    lines += [f"  - `{name}`, sha256 {digest[:16]}…" for name, digest in lineage.base.files.items()]
    if lineage.adapter:
        lines.append(f"- Adapter (PEFT): `{run.path / lineage.adapter.path}`, sha256 {lineage.adapter.sha256[:16]}….")
    for edit in lineage.edits:
        what = f"{edit['method']}, {len(edit['modules'])} modules, strength {edit['strength']:g}"
        lines.append(f"- Edit ({what}): `{run.path / edit['path']}`, sha256 {edit['sha256'][:16]}….")
    for vector in lineage.vectors:
        what = f"{vector['name']}, layer {vector['layer']}, strength {vector['strength']:g}"
        lines.append(f"- Vector ({what}): `{run.path / vector['path']}`, sha256 {vector['sha256'][:16]}….")
    return "\n".join(lines)


def _again(run: RunDirectory, state: RunState) -> str:
    """The command that makes the run again, and what it must find: data by their hashes, versions as above."""
    stored: dict[str, Any] = json.loads(run.sources.read_text(encoding="utf-8")) if run.sources.is_file() else {}
    recipe = stored.get("recipe") or str(run.recipe)
    lines = [f"`finetune-tui run {recipe}` with the seed, settings and versions above, on the same data:"]
    lines += [f"- `{source}`, sha256 {digest}" for source, digest in stored.get("sha256", {}).items()]
    lines.append(f"\nTaking it home: `finetune-tui export {run.id}` lists the forms; each export has a model card.")
    return "\n".join(lines)
