"""A chat as it stands: settings, dials, what was said on both sides. Written down as it grows, and taken up again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from engine.chat.messages import COMPARED, TUNED, DialState, Done, Message, Ready, Say
from engine.chat.settings import Settings
from engine.runs.directory import RunDirectory
from recipes.errors import InputError, Problem

SIDES = (TUNED, COMPARED)


@dataclass
class Exchange:
    """A question and each side's reply. ``attempt`` counts regenerations: each draws with another seed."""

    prompt: str
    attempt: int = 0
    replies: dict[str, Done] = field(default_factory=dict)


class Session:
    """``stage`` and ``compare`` are words of engine/chat/places; the dials are the tuned side's."""

    def __init__(self, run: RunDirectory, stage: str, compare: str, settings: Settings) -> None:
        self.run, self.stage, self.compare, self.settings = run, stage, compare, settings
        self.dials: dict[str, DialState] = {}
        self.wanted: dict[str, float] = {}
        """Dials as they were left, to be turned again when the process is ready."""
        self.exchanges: list[Exchange] = []
        self.path = _new_transcript(run)

    # ---- talking -------------------------------------------------------------------------------------------------

    def say(self, text: str) -> Say:
        self.exchanges.append(Exchange(text))
        self._write("say", turn=len(self.exchanges) - 1, text=text)
        return self._asked()

    def regenerate(self) -> Say | None:
        """The last question once more, with another seed; None when nothing was asked yet."""
        if not self.exchanges:
            return None
        last = self.exchanges[-1]
        last.attempt, last.replies = last.attempt + 1, {}
        self._write("regenerate", turn=len(self.exchanges) - 1, attempt=last.attempt)
        return self._asked()

    def _asked(self) -> Say:
        turn, last = len(self.exchanges) - 1, self.exchanges[-1]
        settings = self.settings
        return Say(
            turn=turn,
            conversations={side: self.messages(side) for side in (SIDES if self.compare else (TUNED,))},
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=settings.max_tokens,
            # The same on both sides, so that two models that agree say the same.
            seed=(settings.seed * 1_000_003 + turn * 1_009 + last.attempt) % 2**31,
            gauge=settings.gauge,  # type: ignore[arg-type]
        )

    def messages(self, side: str) -> list[Message]:
        """The conversation as that side had it, up to the open question. What it did not say itself (it was not
        there yet) it is shown as said by the other."""
        found: list[Message] = []
        if self.settings.system:
            found.append({"role": "system", "content": self.settings.system})
        for exchange in self.exchanges[:-1]:
            reply = exchange.replies.get(side) or exchange.replies.get(TUNED)
            found += [
                {"role": "user", "content": exchange.prompt},
                {"role": "assistant", "content": reply.text if reply else ""},
            ]
        return [*found, {"role": "user", "content": self.exchanges[-1].prompt}]

    def replied(self, done: Done) -> None:
        if done.turn >= len(self.exchanges):  # cleared meanwhile
            return
        self.exchanges[done.turn].replies[done.side] = done
        label = self.stage if done.side == TUNED else self.compare
        dials = {name: dial.value for name, dial in self.dials.items()} if done.side == TUNED else {}
        self._write("reply", stage=label, dials=dials, **msgspec.to_builtins(done))

    # ---- what can be set -----------------------------------------------------------------------------------------

    def ready(self, ready: Ready) -> dict[str, float]:
        """Take the stage's dials; returns those that are to be turned to what they were left at."""
        self.dials = {dial.name: dial for dial in ready.dials}
        wanted = {name: value for name, value in self.wanted.items() if name in self.dials}
        self.wanted = {}
        return wanted

    def turned(self, name: str, value: float) -> None:
        if name in self.dials:
            self.dials[name].value = value
            self._write("dial", name=name, value=value)

    def set(self, settings: Settings) -> None:
        self.settings = settings
        self._write("settings", **msgspec.to_builtins(settings))

    def at(self, stage: str, compare: str) -> None:
        """Talk with another stage, or beside another; the conversation stays."""
        self.wanted = {name: dial.value for name, dial in self.dials.items()} if stage == self.stage else {}
        self.stage, self.compare = stage, compare
        self._write("stage", stage=stage, compare=compare)

    def clear(self) -> None:
        self.exchanges = []
        self._write("clear")

    # ---- the transcript ------------------------------------------------------------------------------------------

    def _write(self, kind: str, **facts: Any) -> None:
        if not self.path.exists():
            if kind != "say":  # a chat in which nothing was said leaves no file
                return
            self.path.parent.mkdir(exist_ok=True)
            begin = {"run": self.run.id, "stage": self.stage, "compare": self.compare}
            dials = {name: dial.value for name, dial in self.dials.items()}
            self._append({"kind": "begin", **begin, "settings": msgspec.to_builtins(self.settings), "dials": dials})
        self._append({"kind": kind, **facts})

    def _append(self, record: Mapping[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"time": time.time(), **record}, ensure_ascii=False) + "\n")


def transcripts(run: RunDirectory) -> list[Path]:
    """Oldest first."""
    return sorted((run.path / "chats").glob("*.jsonl"))


def take_up(run: RunDirectory, name: str | None = None) -> Session:
    """The newest chat of a run, or the named one, as it was left; what is said from now on is appended to it.
    Raises InputError."""
    found = transcripts(run)
    if name:
        found = [path for path in found if path.stem.startswith(name.removesuffix(".jsonl"))]
    if not found:
        known = ", ".join(path.stem for path in transcripts(run)[-5:]) or "none: nothing was said to this run yet"
        raise InputError([Problem(run.id, None, "--continue", f"no chat{f' `{name}`' if name else ''}", known)])
    return _replayed(run, found[-1])


def _replayed(run: RunDirectory, path: Path) -> Session:
    session: Session | None = None
    for record in _records(path):
        kind = record.pop("kind", None)
        if kind == "begin":
            session = Session(run, record["stage"], record["compare"], msgspec.convert(record["settings"], Settings))
            session.wanted = dict(record["dials"])
        elif session is None:
            continue
        elif kind == "say":
            session.exchanges.append(Exchange(record["text"]))
        elif kind == "regenerate":
            session.exchanges[-1].attempt, session.exchanges[-1].replies = record["attempt"], {}
        elif kind == "reply":
            done = msgspec.convert(record, Done)
            if done.turn < len(session.exchanges):
                session.exchanges[done.turn].replies[done.side] = done
        elif kind == "dial":
            session.wanted[record["name"]] = record["value"]
        elif kind == "settings":
            session.settings = msgspec.convert(record, Settings)
        elif kind == "stage":
            session.stage, session.compare = record["stage"], record["compare"]
        elif kind == "clear":
            session.exchanges = []
    if session is None:
        raise InputError([Problem(str(path), 1, None, "no beginning of a chat", "a chat's transcript")])
    session.path = path
    return session


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines; one that a kill tore off is passed over."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def _new_transcript(run: RunDirectory) -> Path:
    stem = time.strftime("%Y%m%d-%H%M%S")
    path = run.path / "chats" / f"{stem}.jsonl"
    number = 1
    while path.exists():
        number += 1
        path = path.with_name(f"{stem}-{number}.jsonl")
    return path
