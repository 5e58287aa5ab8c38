"""What goes over the line between a chat process and whoever talks with it: one JSON line each."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Message = dict[str, str]
TUNED, COMPARED = "tuned", "compared"
"""The two sides: the stage that is talked with, whose dials can be turned, and the one beside it."""
Gauge = Literal["", "kl", "logprob"]
Ending = Literal["end", "length", "stopped"]


# ---- commands: down to the process -----------------------------------------------------------------------------------


class Open(msgspec.Struct, tag_field="do", tag="open"):
    """Load other stages instead of those that are loaded. ``compare`` empty: none beside."""

    stage: str
    compare: str = ""


class Say(msgspec.Struct, tag_field="do", tag="say"):
    """Reply to each side's conversation. One reply at a time: a new one ends the one before."""

    turn: int
    conversations: dict[str, list[Message]]
    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int
    gauge: Gauge = ""


class Turn(msgspec.Struct, tag_field="do", tag="dial"):
    """Turn a dial of the tuned side; the next token feels it."""

    name: str
    value: float


class Stop(msgspec.Struct, tag_field="do", tag="stop"):
    """End the reply under way."""


Command = Open | Say | Turn | Stop


# ---- events: up from the process -------------------------------------------------------------------------------------


class DialState(msgspec.Struct):
    name: str
    kind: str
    value: float
    low: float
    high: float


class Status(msgspec.Struct, tag_field="is", tag="status"):
    """What is being done, in words."""

    text: str


class Ready(msgspec.Struct, tag_field="is", tag="ready"):
    """Loaded. ``cosines``: of every two vectors; ``confidence``: whether the stage says how sure it is;
    ``kl``: whether the base is at hand to measure the divergence from."""

    stage: str
    compare: str
    dials: list[DialState]
    cosines: list[tuple[str, str, float]]
    confidence: bool
    kl: bool
    seconds: float


class Spoken(msgspec.Struct, tag_field="is", tag="token"):
    """A token of a reply; ``kl`` (to the base) and ``logprob`` in nats."""

    turn: int
    side: str
    text: str
    logprob: float
    kl: float | None = None


class Done(msgspec.Struct, tag_field="is", tag="done"):
    """A reply is whole. ``kl``: mean per token, nats; ``confidence``: calibrated probability of the whole reply."""

    turn: int
    side: str
    text: str
    tokens: int
    ending: Ending
    seconds: float
    kl: float | None = None
    confidence: float | None = None


class Turned(msgspec.Struct, tag_field="is", tag="dialed"):
    name: str
    value: float


class Failed(msgspec.Struct, tag_field="is", tag="error"):
    """``fatal``: the process ends after it."""

    text: str
    fatal: bool = False


Event = Status | Ready | Spoken | Done | Turned | Failed

_encoder = msgspec.json.Encoder()
_commands = msgspec.json.Decoder(Command)
_events = msgspec.json.Decoder(Event)


def encode(message: Any) -> bytes:
    """One line, with its end."""
    return _encoder.encode(message) + b"\n"


def decode_command(line: bytes) -> Command:
    """Raises msgspec.DecodeError."""
    return _commands.decode(line)


def decode_event(line: bytes) -> Event:
    """Raises msgspec.DecodeError."""
    return _events.decode(line)
