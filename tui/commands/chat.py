"""chat: talk with a run's stages, on the screen or line by line."""

from __future__ import annotations

import argparse
import json
import queue
import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from engine.chat.messages import TUNED, Done, Event, Failed, Open, Ready, Say, Spoken, Status, Stop, Turn, Turned
from engine.chat.places import find_place
from engine.chat.process import ChatProcess
from engine.chat.room import room_for
from engine.chat.session import Session, take_up
from engine.chat.settings import Settings, changed
from engine.runs.directory import RunDirectory, find_run
from recipes.errors import InputError, Problem
from tui.chat_words import SETTINGS, WORDS, dial_of, parse, said

NO_ROOM = 4


def chat(options: argparse.Namespace) -> int:
    run = find_run(options.run)
    session = opened(run, options)
    if not room_or_word(run, session, options.anyway):
        return NO_ROOM
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if terminal and not options.headless and not options.json:
        from tui.app import FinetuneApp
        from tui.screens.chat import Chat

        app = FinetuneApp(then=lambda: Chat(session, checked=True))
        app.run()
        return app.return_code or 0
    return Plain(session, as_json=options.json, asks=terminal).run()


def opened(run: RunDirectory, options: argparse.Namespace) -> Session:
    """The session that the command line asks for. Raises InputError."""
    if options.continued is not None:
        session = take_up(run, options.continued or None)
        stage, compare = options.stage or session.stage, options.compare or session.compare
    else:
        session = Session(run, "", "", Settings())
        stage, compare = options.stage, options.compare
    session.stage = find_place(run, stage).word
    session.compare = find_place(run, compare, "--compare").word if compare else ""
    for name in SETTINGS:
        given = getattr(options, name)
        if given is not None:
            session.settings = changed(session.settings, name, given)
    names = turnable(run, session.stage)
    for text in options.dial:
        name, value = dial_of(text, names)
        session.wanted[name] = value
    return session


def turnable(run: RunDirectory, stage: str) -> list[str]:
    """Names of the stage's dials, as its lineage says (what a second one of a name is called, the process says)."""
    lineage = find_place(run, stage).lineage
    names = ["abliteration" for _ in lineage.edits] + [vector["name"] for vector in lineage.vectors]
    return [
        name if names[:place].count(name) == 0 else f"{name}-{names[:place].count(name) + 1}"
        for place, name in enumerate(names)
    ]


def room_or_word(run: RunDirectory, session: Session, anyway: bool) -> bool:
    """Whether there is memory for it, or the user takes the risk."""
    sides = [find_place(run, word) for word in (session.stage, session.compare) if word]
    room = room_for(run, sides)
    if room.fits or anyway:
        return True
    print(f"finetune-tui chat: {room}", file=sys.stderr)
    if sys.stdin.isatty():
        return input("load it all the same? [y/N] ").strip().lower() == "y"
    print("finetune-tui chat: `--anyway` loads it all the same", file=sys.stderr)
    return False


class Plain:
    """Reads lines, prints replies. With ``as_json`` a line is printed for each reply, and nothing else."""

    def __init__(self, session: Session, *, as_json: bool, asks: bool) -> None:
        self.session, self.as_json, self.asks = session, as_json, asks
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.process: ChatProcess | None = None

    def run(self) -> int:
        self.process = ChatProcess(self.session.run, self.session.stage, self.session.compare, self.events.put)
        try:
            code = self._until_ready()
            if code is not None:
                return code
            for line in self._lines():
                if not self._line(line):
                    break
            return 0
        except EndedEarly as ended:
            self._error(str(ended))
            return 1
        finally:
            self.process.close()

    # ---- what comes in -------------------------------------------------------------------------------------------

    def _lines(self) -> Iterator[str]:
        while True:
            if self.asks:
                print("> ", end="", flush=True)
            try:
                line = sys.stdin.readline()
            except KeyboardInterrupt:
                return
            if not line:
                return
            if line.strip():
                yield line.strip()

    def _line(self, line: str) -> bool:
        try:
            word = parse(line)
            if word is None:
                self._speak(self.session.say(said(line)))
            elif word.name == "quit":
                return False
            else:
                self._obey(word.name, word.rest)
        except InputError as error:
            self._error(str(error))
        return True

    def _obey(self, name: str, rest: str) -> None:
        session = self.session
        if name in SETTINGS:
            session.set(changed(session.settings, name, rest))
        elif name == "dial":
            turned, value = dial_of(rest, list(session.dials))
            self._send(Turn(turned, value))
            self._wait(Turned)
        elif name in ("stage", "compare"):
            self._move(name, rest)
        elif name == "regenerate":
            say = session.regenerate()
            if say is not None:
                self._speak(say)
        elif name == "clear":
            session.clear()
        elif name == "settings":
            self._note(json.dumps({**msgspec.to_builtins(session.settings), **self._dials()}))
        else:
            self._note("\n".join(f"/{word:<12} {text}" for word, text in WORDS.items()))

    def _move(self, name: str, rest: str) -> None:
        session = self.session
        if name == "compare" and rest in ("", "off", "none"):
            stage, compare = session.stage, ""
        else:
            found = find_place(session.run, rest or None, f"/{name}").word
            stage, compare = (found, session.compare) if name == "stage" else (session.stage, found)
        session.at(stage, compare)
        self._send(Open(stage, compare))
        self._until_ready()

    # ---- what comes out ------------------------------------------------------------------------------------------

    def _until_ready(self) -> int | None:
        """None once loaded; the exit code where loading failed."""
        while True:
            event = self.events.get()
            if isinstance(event, Status):
                self._note(event.text + " …")
            elif isinstance(event, Ready):
                for name, value in self.session.ready(event).items():
                    self._send(Turn(name, value))
                    self._wait(Turned)
                dials = ", ".join(f"{name} {value:g}" for name, value in self._dials().items())
                beside = f" beside {event.compare}" if event.compare else ""
                self._note(f"{event.stage}{beside}" + (f"; dials: {dials}" if dials else ""))
                for first, second, cosine in event.cosines:
                    conflict = ": they undo each other" if cosine < -0.5 else ""
                    self._note(f"cosine of {first} and {second}: {cosine:+.2f}{conflict}")
                return None
            elif isinstance(event, Failed):
                self._error(event.text)
                return (self.process.exit_code() if self.process else None) or (
                    2 if not event.text.startswith("out of") else 1
                )

    def _dials(self) -> dict[str, float]:
        return {name: dial.value for name, dial in self.session.dials.items()}

    def _speak(self, say: Say) -> None:
        """One exchange: the tuned side as it comes, the other after it. Ctrl+C ends the replies, not the chat."""
        self._send(say)
        waiting, kept = set(say.conversations), {}
        both = len(waiting) > 1
        if both and not self.as_json:
            print("tuned> ", end="", flush=True)
        while waiting:
            try:
                event = self.events.get()
            except KeyboardInterrupt:
                self._send(Stop())
                continue
            if isinstance(event, Spoken) and event.side == TUNED and not self.as_json:
                print(event.text, end="", flush=True)
            elif isinstance(event, Done):
                self.session.replied(event)
                waiting.discard(event.side)
                kept[event.side] = event
                if event.side == TUNED and not self.as_json:
                    print(flush=True)
                self._figures(event)
            elif isinstance(event, Status):
                self._note(event.text)
            elif isinstance(event, Failed):
                if event.fatal:
                    raise EndedEarly(event.text)
                self._error(event.text)
                return
        if both and not self.as_json:
            print(f"{self.session.compare}> {kept['compared'].text}", flush=True)

    def _figures(self, done: Done) -> None:
        if self.as_json:
            stage = self.session.stage if done.side == TUNED else self.session.compare
            print(json.dumps({"stage": stage, "dials": self._dials(), **msgspec.to_builtins(done)}), flush=True)
            return
        words = [] if done.kl is None else [f"KL to the base {done.kl:.3f} a token"]
        words += [] if done.confidence is None else [f"confidence {done.confidence:.0%}"]
        words += ["cut off at the longest reply"] if done.ending == "length" else []
        if words:
            self._note(f"{done.side}: {', '.join(words)}")

    # ---- the line ------------------------------------------------------------------------------------------------

    def _send(self, command: Any) -> None:
        assert self.process is not None
        self.process.send(command)

    def _wait(self, kind: type) -> None:
        while True:
            event = self.events.get()
            if isinstance(event, Turned):
                self.session.turned(event.name, event.value)
            if isinstance(event, Failed):
                if event.fatal:
                    raise EndedEarly(event.text)
                raise InputError([Problem("chat", None, None, event.text, "what the chat offers")])
            if isinstance(event, kind):
                return

    def _note(self, text: str) -> None:
        """Beside the replies, which alone go to standard output."""
        if not self.as_json:
            print(text, file=sys.stderr, flush=True)

    def _error(self, text: str) -> None:
        if self.as_json:
            print(json.dumps({"error": text}), flush=True)
        print(f"finetune-tui chat: {text}", file=sys.stderr, flush=True)


class EndedEarly(Exception):
    """The chat process is gone; the message says how."""
