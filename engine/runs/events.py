"""The typed events of a run. One JSON object a line; the tag ``kind`` says which."""

from __future__ import annotations

import math
from typing import Any, Literal

import msgspec

VERSION = 1
Number = float | str
"""A float; NaN and infinities, which JSON lacks, travel as the words ``nan``, ``inf`` and ``-inf``."""


class Event(msgspec.Struct, tag_field="kind", kw_only=True, omit_defaults=True):
    """``seq`` counts from 1 within a run and ``time`` is Unix time; ``stage`` is the 0-based index or None."""

    v: int = VERSION
    seq: int = 0
    time: float = 0.0
    attempt: int = 0
    stage: int | None = None


class RunEvent(Event, tag="run"):
    state: Literal["created", "queued", "running", "paused", "stopped", "failed", "done"]
    reason: str = ""
    code: int | None = None
    detail: dict[str, Any] = {}


class StageEvent(Event, tag="stage"):
    state: Literal["started", "done", "failed"]
    method: str
    steps_total: int = 0
    passed: bool | None = None
    reason: str = ""
    detail: dict[str, Any] = {}


class PhaseEvent(Event, tag="phase"):
    phase: str
    """fetching, loading, evaluating, training or saving."""
    done: float = 0
    total: float = 0
    unit: str = ""
    detail: str = ""


class StepEvent(Event, tag="step", gc=False):  # a million of them must not set the cyclic collector going
    step: int
    total: int
    values: dict[str, Number]
    """loss, kl, reward, learning_rate, grad_norm, tokens, tokens_per_second, seconds, memory_mib, …"""


class MetricEvent(Event, tag="metric"):
    name: str
    value: Number
    n: int
    step: int
    when: Literal["before", "during", "after"]
    low: Number | None = None
    high: Number | None = None
    detail: dict[str, Any] = {}


class SampleEvent(Event, tag="sample"):
    step: int
    prompt: str
    completion: str
    values: dict[str, Number] = {}
    label: str = ""


class AlertEvent(Event, tag="alert"):
    level: str
    """info, warning or error."""
    code: str
    text: str
    detail: dict[str, Any] = {}


class CheckpointEvent(Event, tag="checkpoint"):
    action: Literal["saved", "restored", "invalid", "pruned"]
    step: int
    path: str
    reason: str = ""


class GateEvent(Event, tag="gate"):
    name: str
    value: Number
    min: float | None
    max: float | None
    passed: bool
    n: int
    step: int
    detail: str = ""
    low: Number | None = None
    high: Number | None = None


class OutlookEvent(Event, tag="outlook"):
    """What a stage still takes beside its steps, priced by what it took so far itself."""

    around: dict[str, float]
    """Seconds ``during`` (between steps, evaluations and saving) in all and ``after`` the last step."""


class HeartbeatEvent(Event, tag="heartbeat", gc=False):
    pass


class ExitEvent(Event, tag="exit"):
    process: str
    pid: int
    code: int | None = None
    signal: int | None = None
    reason: str = ""


AnyEvent = (
    RunEvent | StageEvent | PhaseEvent | StepEvent | MetricEvent | SampleEvent | AlertEvent | CheckpointEvent
    | GateEvent | OutlookEvent | HeartbeatEvent | ExitEvent
)  # fmt: skip

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)  # type: ignore[arg-type]


def encode(event: Event) -> bytes:
    """One line of JSON, the newline included. No number is lost: msgspec alone would write NaN as null."""
    if isinstance(event, StepEvent | SampleEvent):
        if any(type(value) is float and not math.isfinite(value) for value in event.values.values()):
            event = msgspec.structs.replace(event, values=_speakable(event.values))
    elif isinstance(event, MetricEvent):
        event = msgspec.structs.replace(
            event,
            value=_speakable(event.value),
            low=_speakable(event.low),
            high=_speakable(event.high),
            detail=_speakable(event.detail),
        )
    elif isinstance(event, GateEvent):
        event = msgspec.structs.replace(event, value=_speakable(event.value))
    elif isinstance(event, RunEvent | StageEvent | AlertEvent):
        event = msgspec.structs.replace(event, detail=_speakable(event.detail))
    return _encoder.encode(event) + b"\n"


def decode(line: bytes) -> AnyEvent:
    """Raises msgspec.DecodeError (or its ValidationError) on anything that is no event."""
    return _decoder.decode(line)


def decode_lines(lines: bytes) -> list[AnyEvent]:
    """Many whole lines at once."""
    return _decoder.decode_lines(lines)


def number(value: Number) -> float:
    """The float that a Number stands for."""
    return float(value)


def _speakable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _speakable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_speakable(item) for item in value]
    return value
