"""The capability suite: what the model could do before, and how much of it is left."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.backends.interface import Conversation, Policy
from engine.evaluate.measurement import Measurement, rate
from engine.verify.answers import matches

ANSWER_TOKENS = 24
DEFINED_ON = 300
"""Rows of each task from which on a figure is called the retention."""
ABLE = 0.5
"""A task counts for retention if the model got at least this share right before: chance-level tasks have nothing to lose."""


@dataclass(frozen=True)
class SuiteRow:
    task: str
    prompt: Conversation
    answer: str


def load_suite(path: Path, per_task: int | None) -> list[SuiteRow]:
    """The suite's rows in order, at most ``per_task`` of each task; none if the run has no suite."""
    if not path.is_file():
        return []
    rows, taken = [], Counter[str]()
    for line in path.read_text(encoding="utf-8").splitlines():
        item = json.loads(line)
        taken[item["task"]] += 1
        if per_task is None or taken[item["task"]] <= per_task:
            rows.append(SuiteRow(item["task"], [{"role": "user", "content": item["prompt"]}], item["answer"]))
    return rows


def measure_suite(
    policy: Policy, rows: Sequence[SuiteRow], seed: int, progress: Callable[[int, int], None] | None = None
) -> list[Measurement]:
    """Greedy exact-match accuracy for each task, named ``suite/<task>``, n in rows."""
    completions = policy.generate(
        [row.prompt for row in rows], max_new_tokens=ANSWER_TOKENS, temperature=0.0, seed=seed, progress=progress
    )
    right: dict[str, list[bool]] = {}
    for row, completion in zip(rows, completions, strict=True):
        right.setdefault(row.task, []).append(completion.finished and matches(completion.text, row.answer))
    return [rate(f"suite/{task}", sum(marks), len(marks), unit="rows") for task, marks in sorted(right.items())]


def retention(
    before: Sequence[Measurement], after: Sequence[Measurement], name: str = "retention"
) -> list[Measurement]:
    """Mean and worst task of min(1, after / before) over the tasks with at least half right before.

    Returns ``[name, name_worst]``; n counts the suite's rows behind them, the detail has each task's figure. Nothing
    is returned when no task was able before: a ratio to chance would say nothing.
    """
    later = {measurement.name: measurement for measurement in after}
    kept: dict[str, float] = {}
    n = 0
    for task in before:
        if not task.name.startswith("suite/") or task.value < ABLE or task.name not in later:
            continue
        kept[task.name.removeprefix("suite/")] = min(1.0, later[task.name].value / task.value)
        n += later[task.name].n
    if not kept:
        return []
    worst = min(kept, key=lambda task: kept[task])
    return [
        Measurement(name, math.fsum(kept.values()) / len(kept), n, detail={"tasks": kept}),
        Measurement(f"{name}_worst", kept[worst], n, detail={"task": worst}),
    ]
