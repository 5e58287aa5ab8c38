"""How long a stage takes: from the machine's peak rates, or from what earlier runs on this machine measured.

A training step costs, per token, 2 floating-point operations for each active parameter in the forward, as many for the
gradient of the activations, as many again for the gradient of the weights (full fine-tuning only), and one more
forward where layers are recomputed or a reference is asked; attention adds 4 x layers x length x query width a pass,
halved by causality. Generating a token reads all weights once.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from functools import cache
from typing import Any

from engine.forecast.arithmetic import weight_bytes
from engine.forecast.hardware import Hardware
from engine.forecast.model import ModelFacts
from engine.forecast.settings import GROUPS, NO_TRAINING, REFERENCES, Settings

UTILIZATION = 0.35
"""Share of the peak rate that a transformers training loop usually reaches on one GPU; an assumption, not a measurement."""
BANDWIDTH_SHARE = 0.5
"""Share of the peak bandwidth that generating reaches; an assumption."""
TOKEN_FLOOR = 0.025
"""Seconds that generating one token (of a batch) takes in Python whatever the model; an assumption."""
CPU_TFLOPS = 0.05
"""A CPU core or two, for machines of unknown rates; replaced by the first run's measurement."""
UNKNOWN_FACTOR = 2.5
"""The interval's factor around a time from peak rates."""
SIMILAR_FACTOR = 1.5
"""Around a time from another stage's measured rate."""
SAME_FACTOR = 1.25
"""Around a time from the same stage's measured pace."""
SKIPPED_STEPS = 2
"""First steps of a stage, which also warm up."""


@dataclass(frozen=True)
class Duration:
    """Seconds of a stage; ``basis`` says what they are from: ``rates``, ``similar runs`` or ``same stage``."""

    seconds: float
    low: float
    high: float
    step_seconds: float
    basis: str
    n: int = 0
    """Steps measured."""

    def to_json(self) -> dict[str, Any]:
        return {
            "value": round(self.seconds, 3), "low": round(self.low, 3), "high": round(self.high, 3),
            "step_s": round(self.step_seconds, 4), "basis": self.basis, "n": self.n,
        }  # fmt: skip


@dataclass(frozen=True)
class Pace:
    """What an earlier stage on this machine measured: seconds a step, the operations of one, and the rest of the stage."""

    method: str
    signature: str
    step_seconds: float
    step_operations: float
    other_seconds: float
    steps: int


def pass_operations(model: ModelFacts, tokens: int, length: int) -> float:
    """Floating-point operations of one forward over ``tokens`` tokens in sequences of ``length``."""
    return tokens * (2.0 * model.active_parameters + 2.0 * model.layers * length * model.query_width)


def step_operations(model: ModelFacts, settings: Settings) -> float:
    """Of one optimizer step on one device, without generating."""
    if not settings.trains:
        return pass_operations(model, settings.batch_size * settings.length, settings.length)
    tokens = settings.sequences * settings.length * settings.accumulation
    passes = 3.0 if settings.training == "full" else 2.0
    passes += 1.0 if settings.gradient_checkpointing else 0.0
    passes += 1.0 if settings.method in REFERENCES and settings.reference in ("base", "adapter", "copy") else 0.0
    return passes * pass_operations(model, tokens, settings.length)


def generation_seconds(model: ModelFacts, settings: Settings, hardware: Hardware, sequences: int, tokens: int) -> float:
    """Seconds to sample ``tokens`` each for ``sequences`` prompts at once."""
    if not sequences or not tokens:
        return 0.0
    bandwidth = (hardware.bandwidth or (40.0 if hardware.kind == "cpu" else 300.0)) * 1e9 * BANDWIDTH_SHARE
    reading = weight_bytes(model, settings) / bandwidth
    computing = sequences * 2.0 * model.active_parameters / _rate(hardware)
    return tokens * max(TOKEN_FLOOR, reading, computing)


def _rate(hardware: Hardware) -> float:
    return (hardware.tflops or (CPU_TFLOPS if hardware.kind == "cpu" else 50.0)) * 1e12 * UTILIZATION


def duration(
    model: ModelFacts, settings: Settings, hardware: Hardware, paces: tuple[Pace, ...] = (), signature: str = ""
) -> Duration:
    """The time of a whole stage, evaluations included. ``paces`` are measurements of this machine, newest last."""
    operations = step_operations(model, settings)
    steps = settings.steps if settings.trains else 1
    same = [pace for pace in paces if signature and pace.signature == signature]
    if same:
        step = statistics.median(pace.step_seconds for pace in same)
        other = statistics.median(pace.other_seconds for pace in same)
        return _within(steps * step + other, step, SAME_FACTOR, "same stage", sum(pace.steps for pace in same))
    evaluating = 0.0
    if settings.evaluation_prompts:
        batches = -(-settings.evaluation_prompts // 64)
        once = generation_seconds(model, settings, hardware, 64, settings.evaluation_tokens)
        evaluating = 2 * batches * once
    similar = [pace for pace in paces if pace.method == settings.method and pace.step_operations > 0]
    if similar and settings.trains:
        rate = statistics.median(pace.step_operations / pace.step_seconds for pace in similar)
        step = operations / rate
        evaluating = statistics.median(pace.other_seconds / pace.step_seconds for pace in similar) * step
        return _within(
            steps * step + evaluating, step, SIMILAR_FACTOR, "similar runs", sum(pace.steps for pace in similar)
        )
    rate = _rate(hardware)
    if settings.quantization != "none":
        rate *= 0.8  # unpacking the weights for every product
    step = operations / rate
    if settings.method in GROUPS:
        sequences = settings.batch_size * settings.accumulation
        step += generation_seconds(model, settings, hardware, sequences, settings.max_new_tokens)
    if settings.method in NO_TRAINING:
        batches = -(-max(400, settings.evaluation_prompts) // 64)
        step += batches * generation_seconds(model, settings, hardware, 64, settings.max_new_tokens)
    return _within(steps * step + evaluating, step, UNKNOWN_FACTOR, "rates", 0)


def _within(seconds: float, step: float, factor: float, basis: str, n: int) -> Duration:
    return Duration(seconds, seconds / factor, seconds * factor, step, basis, n)


# ---- earlier runs --------------------------------------------------------------------------------------------------------


def stage_signature(recipe: Any, index: int) -> str:
    """What makes two stages the same work: the model, the data and every setting that time depends on."""
    stage = recipe.stages[index]
    names = ("method", "batch_size", "accumulation", "max_length", "training", "gradient_checkpointing", "optimizer")
    more = ("group_size", "max_new_tokens", "num_iterations")
    parts = [str(getattr(stage, name, "")) for name in (*names, *more)]
    replay = getattr(stage, "replay", None)
    evaluation = getattr(stage, "evaluation", None)
    parts += [
        recipe.model,
        recipe.quantization,
        recipe.dtype,
        str(getattr(stage, "data", "")),
        str(replay),
        str(evaluation),
    ]
    return "|".join(parts)


@cache
def earlier_paces(newest: int = 20) -> tuple[Pace, ...]:
    """The paces of the newest runs of this machine, from their event logs; oldest first."""
    from engine.runs.directory import list_runs

    found: list[Pace] = []
    for run in list_runs()[-newest:]:
        try:
            found += _paces_of(run)
        except Exception:  # noqa: S112 - a run of another version, or a damaged one, teaches nothing
            continue
    return tuple(found)


def _paces_of(run: Any) -> list[Pace]:
    from engine.forecast.model import find_model
    from engine.forecast.settings import from_stage
    from engine.runs.events import StageEvent, StepEvent
    from engine.runs.log import read_events
    from recipes.load import load_recipe

    recipe = load_recipe(str(run.recipe)).recipe
    model = find_model(recipe.model, run.path)
    began: dict[int, float] = {}
    seconds: dict[int, list[float]] = {}
    ended: dict[int, float] = {}
    attempts: dict[int, set[int]] = {}
    for event in read_events(run.events):
        if event.stage is None:
            continue
        if isinstance(event, StageEvent) and event.state == "started":
            began[event.stage] = event.time
        elif isinstance(event, StageEvent) and event.state == "done":
            ended[event.stage] = event.time
        elif isinstance(event, StepEvent) and isinstance(event.values.get("seconds"), float):
            seconds.setdefault(event.stage, []).append(float(event.values["seconds"]))
            attempts.setdefault(event.stage, set()).add(event.attempt)
    paces = []
    for index, taken in seconds.items():
        taken = taken[SKIPPED_STEPS:]
        if len(taken) < 3 or index not in ended or index not in began or len(attempts[index]) > 1:
            continue  # not measured through, or resumed in between: the stage's whole time would mislead
        stage = recipe.stages[index]
        quantization = recipe.quantization if recipe.quantization != "auto" else "none"
        settings = from_stage(recipe, stage, inherited_adapter=index > 0, dtype="fp32", quantization=quantization)
        pace = statistics.mean(taken)
        other = max(0.0, ended[index] - began[index] - pace * settings.steps)
        signature = stage_signature(recipe, index)
        paces.append(Pace(settings.method, signature, pace, step_operations(model, settings), other, len(taken)))
    return paces
