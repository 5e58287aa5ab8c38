"""How long a stage takes, evaluations included: counted work (``workload``) priced for the machine (``cost``).

Before anything ran on the machine, the prices are the makers' peak rates with a wide interval. Every stage that is done
adds what it measured (``rates``); from then on also methods that never ran here are priced by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.forecast.cost import CHARACTERS_A_TOKEN, Cost, known_of
from engine.forecast.hardware import Hardware
from engine.forecast.model import ModelFacts
from engine.forecast.rates import Record
from engine.forecast.settings import GROUPS, Settings
from engine.forecast.workload import SUITE_TOKENS, Workload

UNKNOWN_FACTOR = 2.5
"""The interval's factor around a time from peak rates."""
OTHER_MODEL_FACTOR = 2.0
"""Around a time from what other models measured on this machine."""
FEW_FACTOR = 1.75
"""Around a time from what one or two other methods measured with this model: how long it writes elsewhere is a guess. It held
84 of 90 (``python -m tests.bench bench_time_forecast``)."""
SIMILAR_FACTOR = 1.35
"""Around a time from what this method, or several others, measured with this model."""
SEVERAL = 3
SAME_FACTOR = 1.25
"""Around a time from the same stage's earlier runs."""
BASES = ("rates", "other models", "similar runs", "same stage")
"""What a time may be from, the surest last."""
USUAL_SUITE, USUAL_TESTED = 1500, 400
"""Rows where only settings are known, no recipe: the built-in suite and test prompts."""


@dataclass(frozen=True)
class Duration:
    """Seconds of a stage; ``basis`` says what they are from: ``rates`` (peaks), ``other models``, ``similar runs``
    (this model, another stage) or ``same stage``."""

    seconds: float
    low: float
    high: float
    step_seconds: float
    basis: str
    n: int = 0
    """Earlier stages that were measured."""
    around: dict[str, float] = field(default_factory=dict)
    """Of the seconds those that are no steps: ``before``, ``during`` (between steps), ``after``."""

    def to_json(self) -> dict[str, Any]:
        return {
            "value": round(self.seconds, 3), "low": round(self.low, 3), "high": round(self.high, 3),
            "step_s": round(self.step_seconds, 4), "basis": self.basis, "n": self.n,
            "around": {name: round(value, 3) for name, value in self.around.items()},
        }  # fmt: skip


def duration(
    model: ModelFacts,
    settings: Settings,
    hardware: Hardware,
    work: Workload | None = None,
    records: Sequence[Record] = (),
    signature: str = "",
    unit: str = "s",
) -> Duration:
    """The time of a whole stage. ``records`` are measurements of this machine, newest last; ``work`` None: as much as a
    recipe with these settings usually has. ``unit`` ``cpu`` counts the process's own seconds instead of the wall's."""
    steps = settings.steps if settings.trains else 0
    known = known_of(records, model, unit)
    cost = Cost(model, settings, hardware, known)
    work = work or usual_workload(settings)
    around = cost.around(work)
    same = [one for one in records if signature and one.get("signature") == signature][-3:]
    if same and (not settings.trains or all(one["steps"].get("n") for one in same)):
        paces = [one["steps"][unit] / one["steps"]["n"] if settings.trains else 0.0 for one in same]
        others = [
            one[unit] - pace * one["settings"]["steps"] * bool(pace) for one, pace in zip(same, paces, strict=True)
        ]
        step, other = sum(paces) / len(paces), sum(others) / len(others)
        scale = other / sum(around.values())
        around = {name: scale * value for name, value in around.items()}
        return _within(around, steps, step, SAME_FACTOR, "same stage", len(same))
    step = cost.step(work)
    if known.same:
        methods = {one["method"] for one in known.same}
        sure = settings.method in methods or len(methods) >= SEVERAL
        return _within(around, steps, step, SIMILAR_FACTOR if sure else FEW_FACTOR, "similar runs", len(known.same))
    if records:
        return _within(around, steps, step, OTHER_MODEL_FACTOR, "other models", len(records))
    return _within(around, steps, step, UNKNOWN_FACTOR, "rates", 0)


def _within(around: dict[str, float], steps: int, step: float, factor: float, basis: str, n: int) -> Duration:
    seconds = sum(around.values()) + steps * step
    return Duration(seconds, seconds / factor, seconds * factor, step, basis, n, around)


def usual_workload(settings: Settings) -> Workload:
    """Where no recipe says what is measured: nothing around the training unless evaluation prompts are named."""
    prompt = settings.prompt_length * CHARACTERS_A_TOKEN
    work = Workload(padded=settings.length * CHARACTERS_A_TOKEN)
    if settings.method in GROUPS:
        work.asked = max(1, settings.length - settings.max_new_tokens) * CHARACTERS_A_TOKEN
    if not settings.trains:
        work.generate(USUAL_TESTED, settings.max_new_tokens, True, prompt)
    for _ in range(2 if settings.evaluation_prompts else 0):
        work.generate(settings.evaluation_prompts, settings.evaluation_tokens, False, prompt)
        work.generate(USUAL_SUITE, SUITE_TOKENS, True, prompt)
    return work


def stage_signature(recipe: Any, index: int) -> str:
    """What makes two stages the same work: the model, the data and every setting that time depends on."""
    stage = recipe.stages[index]
    names = ("method", "batch_size", "accumulation", "max_length", "training", "gradient_checkpointing", "optimizer")
    more = ("group_size", "max_new_tokens", "num_iterations", "padding_free")
    parts = [str(getattr(stage, name, "")) for name in (*names, *more)]
    replay = getattr(stage, "replay", None)
    evaluation = getattr(stage, "evaluation", None)
    parts += [
        recipe.model,
        recipe.quantization,
        recipe.dtype,
        recipe.attention,
        str(getattr(stage, "data", "")),
        str(replay),
        str(evaluation),
        *([f"{recipe.processes} processes"] if recipe.processes > 1 else []),
        *([stage.generation] if getattr(stage, "generation", "auto") != "auto" else []),
    ]
    return "|".join(parts)
