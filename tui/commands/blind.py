"""blind: judge two stages on the same prompts without knowing which is which."""

from __future__ import annotations

import argparse
import json
import queue
import sys

from engine.chat.blind import Blind, Choice, prompts_from
from engine.chat.messages import Done, Event, Failed, Ready
from engine.chat.places import find_place
from engine.chat.process import ChatProcess
from engine.chat.room import room_for
from engine.chat.settings import Settings, changed
from engine.runs.directory import find_run

KEYS: dict[str, Choice] = {"1": "left", "2": "right", "t": "tie", "b": "bad"}
SETTINGS = ("system", "temperature", "max_tokens")


def blind(options: argparse.Namespace) -> int:
    made = asked_for(options)
    if not made.finished:
        sides = [find_place(made.run, word) for word in (made.stage, made.against)]
        room = room_for(made.run, sides)
        if not room.fits and not options.anyway:
            print(f"finetune-tui blind: {room}; `--anyway` loads it all the same", file=sys.stderr)
            return 4
        if sys.stdin.isatty() and sys.stdout.isatty() and not options.headless and not options.json:
            from tui.app import FinetuneApp
            from tui.screens.blind import BlindScreen

            FinetuneApp(then=lambda: BlindScreen(made)).run()
        else:
            code = _line_by_line(made, options.json)
            if code:
                return code
    return _told(made, options.json)


def asked_for(options: argparse.Namespace) -> Blind:
    """Raises InputError."""
    run = find_run(options.run)
    settings = Settings(seed=options.seed)
    for name in SETTINGS:
        if getattr(options, name) is not None:
            settings = changed(settings, name, getattr(options, name))
    stage = find_place(run, options.stage).word
    against = find_place(run, options.against, "--against").word
    prompts = prompts_from(run, options.prompts, stage, options.n, options.seed)
    return Blind(run, stage, against, prompts, settings)


def _line_by_line(made: Blind, as_json: bool) -> int:
    """A pair, then a line with 1, 2, t, b, u (undo) or q from standard input."""
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    process = ChatProcess(made.run, made.stage, made.against, events.put)
    try:
        while True:
            event = events.get()
            if isinstance(event, Failed):
                print(f"finetune-tui blind: {event.text}", file=sys.stderr)
                return process.exit_code() or 2
            if isinstance(event, Ready):
                break
        while not made.finished:
            index = made.open()
            if index is None:
                say = made.wanted()
                assert say is not None
                process.send(say)
                while True:
                    event = events.get()
                    if isinstance(event, Failed):
                        print(f"finetune-tui blind: {event.text}", file=sys.stderr)
                        return 1
                    if isinstance(event, Done) and made.replied(event):
                        break
                continue
            if not _judged(made, index, as_json):
                break
    finally:
        process.close()
    return 0


def _judged(made: Blind, index: int, as_json: bool) -> bool:
    """Show a pair and take the choice; False when the judge leaves."""
    left, right = made.shown(index)
    prompt = made.pairs[index].prompt[-1]["content"]
    if as_json:
        print(json.dumps({"pair": index, "prompt": prompt, "1": left, "2": right}), flush=True)
    else:
        print(f"\n{len(made.choices) + 1}. {prompt}\n\n1) {left}\n\n2) {right}\n", flush=True)
    while True:
        if not as_json:
            print("better: 1, 2, t (tie), b (both bad); u takes the last back, q leaves: ", end="", flush=True)
        line = sys.stdin.readline()
        word = line.strip().lower()
        if not line or word == "q":
            return False
        if word == "u":
            made.undo()
            return True
        if word in KEYS:
            made.choose(index, KEYS[word])
            return True


def _told(made: Blind, as_json: bool) -> int:
    if as_json:
        print(json.dumps(made.result()))
        return 0
    print("\n" + made.tally().words(f"stage {made.stage}", made.against))
    left = len(made.prompts) - len(made.choices) - made.tally().same
    if left:
        print(f"{left} pairs are left; the same command goes on with them")
    if made.tally().decided:
        print(f"the choices, as preference pairs: {made.preferences}")
        print(f"`finetune-tui data {made.preferences}` says what can be trained on them")
    return 0
