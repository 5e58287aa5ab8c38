"""Samples over time: what the model answered to the same prompt earlier and what it answers now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.runs.events import SampleEvent


@dataclass(frozen=True)
class Answers:
    """One prompt with its answers. ``earlier`` is None for a prompt that was asked once."""

    prompt: str
    now: SampleEvent
    earlier: SampleEvent | None
    steps: list[int]
    """All steps at which it was answered."""


def answers_over_time(samples: Sequence[SampleEvent], back: int = 0) -> list[Answers]:
    """Prompts answered several times first, then the newest. ``back`` chooses the earlier answer: 0 the first, 1 the
    second, and so on, going round."""
    groups: dict[tuple[str, str, int], list[SampleEvent]] = {}
    for number, sample in enumerate(samples):  # training shows several answers to one prompt at one step
        key = (sample.prompt, sample.label, number if sample.label == "training" else -1)
        groups.setdefault(key, []).append(sample)
    found = []
    for (prompt, _, _), given in groups.items():
        by_step = list({sample.step: sample for sample in given}.values())
        before = by_step[:-1]
        earlier = before[back % len(before)] if before else None
        found.append(Answers(prompt, by_step[-1], earlier, [sample.step for sample in by_step]))
    newest = sorted(found, key=lambda one: -one.now.step)
    return [one for one in newest if one.earlier] + [one for one in newest if not one.earlier]


def earlier_choices(samples: Sequence[SampleEvent]) -> int:
    """How many different earlier answers there are to go through."""
    return max((len(one.steps) - 1 for one in answers_over_time(samples)), default=0)
