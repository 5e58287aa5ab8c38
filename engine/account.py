"""What a run's report and an export's card both say of a stage: gates, figures, forecast against actual, samples."""

from __future__ import annotations

import math
import time

from engine.runs.events import GateEvent, MetricEvent
from engine.runs.state import RunState, StageState

RECENT = 1000
"""Steps whose memory gauge is looked at: it is the attempt's peak so far."""


UNMEASURED = "\u2013"


def gate_table(stage: StageState) -> str:
    """Empty without gates."""
    if not stage.gates:
        return ""
    rows = ["| gate | value | 95 % interval | limit | n | |", "|---|---|---|---|---|---|"]
    for gate in stage.gates.values():
        low, high = gate.low, gate.high
        measured = stage.latest(gate.name)
        if low is None and measured is not None:  # logs of before gates had their interval
            low, high = measured.low, measured.high
        verdict = ("passed" if gate.passed else "**failed**") + (f"; {gate.detail}" if gate.detail else "")
        shown = f"{gate_value(gate)} | {_interval(low, high)} | {limit_words(gate)}"
        rows.append(f"| {gate.name} | {shown} | {gate.n} | {verdict} |")
    return "\n".join(rows)


def metric_table(stage: StageState, left_out: frozenset[str] = frozenset()) -> str:
    """Everything that was measured, before and after; empty if nothing was but ``left_out``."""
    rows = ["| measured | before | after | 95 % interval | n |", "|---|---|---|---|---|"]
    for name, found in sorted(stage.metrics.items()):
        if name not in left_out:
            rows.append(_metric_row(name, found))
    return "\n".join(rows) if len(rows) > 2 else ""


def _metric_row(name: str, found: dict[str, MetricEvent]) -> str:
    before, after = found.get("before"), found.get("after") or found.get("during")
    latest = after or before
    assert latest is not None
    values = [figure(float(one.value)) if one else "" for one in (before, after)]
    return f"| {name} | {values[0]} | {values[1]} | {_interval(latest.low, latest.high)} | {latest.n} |"


def _interval(low: float | str | None, high: float | str | None) -> str:
    return "" if low is None or high is None else f"{figure(float(low))} to {figure(float(high))}"


def forecast_words(state: RunState, stage: StageState) -> str:
    """What the stage was said to need when it began, and what it took; empty where nothing was said."""
    told = next((one.detail for one in state.alerts if one.stage == stage.index and one.code == "forecast"), None)
    parts = []
    if told is not None:
        memory, seconds = told["memory"], told["time_s"]
        series = stage.series.get("memory_mib")
        recent = series.values[-RECENT:] if series else ()
        peak = max((value for value in recent if math.isfinite(value)), default=None)
        words = f"memory {memory['low_mib']:.0f} to {memory['high_mib']:.0f} MiB"
        parts.append(words + (f", took {peak:.0f} MiB" if peak is not None else ""))
        words = f"time {duration(seconds['low'])} to {duration(seconds['high'])}, {duration(seconds['value'])} the likeliest"
        if stage.started and stage.ended:
            words += f", took {duration(stage.ended - stage.started)}"
            words += f" in {stage.attempts} starts, pauses included" if stage.attempts > 1 else ""
        parts.append(words)
    parts += [one.text for one in state.alerts if one.stage == stage.index and one.code == "launch-probe"][-1:]
    return f"Forecast against actual: {'; '.join(parts)}." if parts else ""


def sample_words(stage: StageState) -> str:
    """The same held-out prompts before and after, greedy; what stands there once is shown once."""
    if not stage.samples:
        return ""
    steps = sorted({sample.step for sample in stage.samples})
    first = {sample.prompt: sample.completion for sample in stage.samples if sample.step == steps[0]}
    rows = []
    for sample in (one for one in stage.samples if one.step == steps[-1]):
        rows.append(f"> **{_inline(sample.prompt)}**" + (f" ({sample.label})" if sample.label else ""))
        if len(steps) > 1 and sample.prompt in first:
            rows.append(f">\n> before: {_inline(first[sample.prompt])}\n>\n> after: {_inline(sample.completion)}\n")
        else:
            rows.append(f">\n> {_inline(sample.completion)}\n")
    return "Greedy completions of held-out prompts:\n\n" + "\n".join(rows).strip()


def _inline(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


# ---- words that the monitor uses too ---------------------------------------------------------------------------------


def figure(value: float) -> str:
    """Four significant digits; NaN and infinities as words."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:.4g}"


def gate_value(gate: GateEvent) -> str:
    """The figure; a dash where nothing measured it."""
    return figure(float(gate.value)) if gate.n or math.isfinite(float(gate.value)) else UNMEASURED


def limit_words(gate: GateEvent) -> str:
    """``≥ 0.15``, ``≤ 0.1`` or both."""
    parts = [] if gate.min is None else [f"≥ {gate.min:g}"]
    return " and ".join(parts + ([] if gate.max is None else [f"≤ {gate.max:g}"]))


def duration(seconds: float) -> str:
    """``41 s``, ``3 min 20 s``, ``2 h 5 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def clock(moment: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment)) if moment else "?"
