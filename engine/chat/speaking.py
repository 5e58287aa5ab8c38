"""What a chat process does: load the stages, reply token by token, obey between two tokens."""

from __future__ import annotations

import gc
import math
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from engine.backends import open_backend
from engine.backends.interface import LoadSettings, Sampling, Token
from engine.chat.line import Line
from engine.chat.messages import (
    COMPARED,
    TUNED,
    Command,
    DialState,
    Done,
    Ending,
    Failed,
    Message,
    Open,
    Ready,
    Say,
    Spoken,
    Status,
    Stop,
    Turn,
    Turned,
)
from engine.chat.places import BASE, Place, backend_of, find_place
from engine.models.lineage import lineage_in
from engine.models.verified import verify_lineages
from engine.runs.directory import RunDirectory
from engine.runs.exitcodes import BAD_INPUT, FAILED
from engine.stages.memory import ran_out
from recipes.errors import InputError
from recipes.load import load_recipe
from recipes.schema import Recipe, quantization_of

LEAST_ROOM = 16
"""Tokens that a reply must have room for; older turns make way for it."""


class Speaking:
    def __init__(self, run: RunDirectory, line: Line) -> None:
        self.run_directory, self.line = run, line
        self.recipe: Recipe = load_recipe(str(run.recipe)).recipe
        self.voices: dict[str, Any] = {}
        self.places: dict[str, Place] = {}

    def run(self, stage: str, compare: str) -> int:
        """Until the line closes, which ends the process; or until loading fails: then its exit code."""
        if self._open(stage, compare) is not None:
            return self._failed or FAILED
        while True:
            self._obey(self.line.wait())

    # ---- loading -------------------------------------------------------------------------------------------------

    _failed = 0

    def _open(self, stage: str, compare: str) -> Failed | None:
        """Load; a failure is told and returned."""
        begun = time.monotonic()
        first = not self.voices
        try:
            found = {TUNED: find_place(self.run_directory, stage)}
            if compare:
                found[COMPARED] = find_place(self.run_directory, compare, "--compare")
            self.line.tell(Status("loading " + " and ".join(place.label for place in found.values())))
            self.voices, self.places = {}, {}
            gc.collect()
            self.voices = self._load(found)
            self.places = found
        except InputError as error:
            return self._give_up(str(error), first, BAD_INPUT)
        except Exception as error:
            traceback.print_exc()
            words = "out of memory while loading; `--stage` with a smaller model, or end what else uses the device"
            text = words if ran_out(error) else f"{type(error).__name__}: {error}"
            return self._give_up(text, True, FAILED)
        tuned = self.voices[TUNED]
        self.line.tell(
            Ready(
                stage=found[TUNED].label,
                compare=found[COMPARED].label if compare else "",
                dials=[DialState(d.name, d.kind, d.value, d.low, d.high) for d in tuned.dials()],
                cosines=tuned.cosines(),
                confidence=bool(found[TUNED].lineage.confidence),
                kl=BASE in self.voices,
                seconds=time.monotonic() - begun,
            )
        )
        return None

    def _give_up(self, text: str, fatal: bool, code: int) -> Failed:
        self._failed = code
        failed = Failed(text, fatal)
        self.line.tell(failed)
        return failed

    def _load(self, found: dict[str, Place]) -> dict[str, Any]:
        """The sides, and the recipe's base for the divergence from it where it costs no second model."""
        lineages = {side: place.lineage for side, place in found.items()}
        base = lineage_in(self.run_directory, 0)
        if any(lineage.base.path == base.base.path for lineage in lineages.values()):
            lineages[BASE] = base
        recipe = self.recipe
        settings = LoadSettings(
            quantization=quantization_of(recipe),
            dtype=recipe.dtype, training="none", rank=1, alpha=1.0, dropout=0.0, targets="all-linear",
            gradient_checkpointing=False, seed=0, needs_reference=False, trust_remote_code=recipe.trust_remote_code,
        )  # fmt: skip
        path = self.run_directory.path
        verify_lineages(lineages.values(), path, lambda name: self.line.tell(Status(f"checking the hash of {name}")))
        backend = open_backend(backend_of(self.run_directory, found[TUNED]))
        if all(stage.backend in (None, recipe.backend) for stage in recipe.stages):  # else another may be asked for
            backend.alone(settings, "", path / base.base.path)
        return dict(backend.voices(lineages, path, settings))

    # ---- speaking ------------------------------------------------------------------------------------------------

    def _obey(self, command: Command) -> None:
        """A command; while replying, also those that come in between. A new one ends the reply under way."""
        following: Command | None = command
        while following is not None:
            now, following = following, None
            if isinstance(now, Open):
                self._open(now.stage, now.compare)
            elif isinstance(now, Turn):
                self._turn(now)
            elif isinstance(now, Say):
                try:
                    following = self._reply(now)
                except Exception as error:
                    traceback.print_exc()
                    words = "out of memory; a shorter conversation or fewer tokens need less" if ran_out(error) else ""
                    self.line.tell(Failed(words or f"{type(error).__name__}: {error}"))

    def _turn(self, command: Turn) -> None:
        try:
            value = self.voices[TUNED].dial(command.name, command.value)
        except InputError as error:
            self.line.tell(Failed(str(error)))
        else:
            self.line.tell(Turned(command.name, value))

    def _reply(self, say: Say) -> Command | None:
        """All sides in turns, a token each. Returns the command that ended the replies before they were whole."""
        replies = [
            self._begun(say, side, messages) for side, messages in say.conversations.items() if side in self.voices
        ]
        while any(not reply.ending for reply in replies):
            while (command := self.line.waiting()) is not None:
                if isinstance(command, Turn):
                    self._turn(command)
                    continue
                for reply in replies:
                    self._end(say, reply, "stopped")
                return None if isinstance(command, Stop) else command
            for reply in replies:
                if not reply.ending:
                    self._step(say, reply)
        return None

    def _begun(self, say: Say, side: str, messages: list[Message]) -> Reply:
        voice = self.voices[side]
        kept = self._fitting(voice, messages)
        room = say.max_new_tokens if voice.length is None else min(say.max_new_tokens, voice.length - voice.count(kept))
        settings = self.places[side].lineage.confidence
        temperatures = _temperatures(settings)
        stream = voice.stream(
            kept,
            Sampling(say.temperature, say.top_p, max(1, room), say.seed),
            against=self.voices.get(BASE) if say.gauge == "kl" and self.voices.get(BASE) is not voice else None,
            temperatures=temperatures,
        )
        return Reply(side, stream, temperatures, settings)

    def _fitting(self, voice: Any, messages: list[Message]) -> list[Message]:
        """The conversation without its oldest turns, where the model cannot read it whole."""
        kept = list(messages)
        while voice.length is not None and voice.count(kept) + LEAST_ROOM > voice.length:
            first = 1 if kept[0]["role"] == "system" else 0
            if len(kept) - first < 3:  # only the question is left
                break
            del kept[first : first + 2]
        if len(kept) < len(messages):
            self.line.tell(
                Status(f"the oldest {len(messages) - len(kept)} messages are left out: the model reads {voice.length} tokens")
            )  # fmt: skip
        return kept

    def _step(self, say: Say, reply: Reply) -> None:
        token = next(reply.stream, None)
        if token is None:
            self._end(say, reply, "length")
            return
        reply.add(token)
        if token.ends:
            self._end(say, reply, "end")
        else:
            self.line.tell(Spoken(say.turn, reply.side, token.text, token.logprob, token.kl))

    def _end(self, say: Say, reply: Reply, ending: Ending) -> None:
        if reply.ending:
            return
        reply.ending = ending
        reply.stream.close()  # type: ignore[attr-defined]
        self.line.tell(
            Done(
                turn=say.turn, side=reply.side, text=reply.text.strip(), tokens=reply.tokens, ending=ending,
                seconds=time.monotonic() - reply.begun,
                kl=sum(reply.kl) / len(reply.kl) if reply.kl else None,
                confidence=reply.confidence() if ending == "end" else None,
            )
        )  # fmt: skip


@dataclass
class Reply:
    """A reply under way."""

    side: str
    stream: Iterator[Token]
    temperatures: tuple[float, ...]
    settings: dict[str, Any] | None
    text: str = ""
    tokens: int = 0
    ending: Ending | None = None
    kl: list[float] = field(default_factory=list)
    tempered: list[float] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    def add(self, token: Token) -> None:
        self.text += token.text
        self.tokens += 1
        if token.kl is not None:
            self.kl.append(token.kl)
        self.tempered = [
            a + b for a, b in zip(self.tempered or [0.0] * len(token.tempered), token.tempered, strict=True)
        ]

    def confidence(self) -> float | None:
        """Probability of the whole reply under the confidence settings (engine/evaluate/calibration.py)."""
        if not self.settings:
            return None
        wanted = self.settings.get("by_length", {}).get(str(self.tokens), self.settings["temperature"])
        return math.exp(min(0.0, self.tempered[self.temperatures.index(wanted)]))


def _temperatures(settings: dict[str, Any] | None) -> tuple[float, ...]:
    """Every confidence temperature that a reply might turn out to need."""
    if not settings:
        return ()
    return tuple(dict.fromkeys([settings["temperature"], *settings.get("by_length", {}).values()]))
