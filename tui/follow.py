"""Follow a run's log in a thread: events into the reducer, at most a few views a second out."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from engine.runs.directory import RunDirectory, status
from engine.runs.events import HeartbeatEvent, StepEvent
from engine.runs.log import Tail
from engine.runs.state import RunState
from tui.eta import RECENT, Eta
from tui.surroundings import look_around
from tui.view.conditions import Surroundings
from tui.view.event_words import event_words
from tui.view.gauges import Look
from tui.view.run_view import RunView, view_of

POLL = 1 / 3
"""Seconds between two looks at the log, and so between two views; a key is answered at once."""
CHUNK = 1 << 18
"""Bytes read at a time: some thousand events, so that a long log never holds the interpreter for long."""
LONG = 1 << 23
"""Bytes of a log from which on it is skimmed first: how the run stands is shown at once, each step's values after it."""
BREATH = 0.0005
"""Seconds given to the screen between two chunks."""
KEPT_LINES = 1000
STATUS_EVERY = 1.0
AROUND_EVERY = 10.0
"""Seconds between two looks at the machine while a run works."""
FREQUENT = (StepEvent, HeartbeatEvent)
"""What makes a log long: of these only the last few are looked at one by one."""


@dataclass(frozen=True)
class Update:
    view: RunView
    lines: list[str]
    """Lines of the log since the last update."""


class Follower:
    """Calls ``deliver`` (in its own thread) with an Update whenever there is something new to show."""

    def __init__(self, run: RunDirectory, deliver: Callable[[Update], None]) -> None:
        self.run = run
        self.state = RunState()
        self.shown = self.state
        """What the newest view is of: while a long log is read, what a look through it found."""
        self._deliver = deliver
        self._eta = Eta()
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._look = Look()
        self._wake = threading.Event()
        self._around = Surroundings()
        self._looked_around = float("-inf")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True, name=f"follow {run.id}")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()

    def look(self, look: Look) -> None:
        """Show this from now on; the next view comes at once."""
        self._look = look
        self._wake.set()

    def _follow(self) -> None:
        self._skim()
        tail = Tail(self.run.events)
        now_is, looked, shown_second = "", 0.0, -1
        dirty = True
        while not self._stop.is_set():
            events = tail.read(CHUNK)
            self.state.apply_all(events)
            recent, several = events[-RECENT:], len(events) > 100
            telling = [event for event in events[:-RECENT] if type(event) not in FREQUENT] + recent
            dirty = dirty or bool(events)
            del events  # before the next are read
            for event in telling:
                self._eta.apply(event)
                if type(event) in FREQUENT:
                    continue
                line = event_words(event, self.state)
                if line:
                    self._lines.append(f"{time.strftime('%H:%M:%S', time.localtime(event.time))} {line}")
            if several:  # far behind: catch up before more is shown
                time.sleep(BREATH)
                continue
            if dirty or time.monotonic() - looked > STATUS_EVERY:  # a run may also die without a word
                looked, before = time.monotonic(), now_is
                now_is = status(self.run, self.state)
                dirty = dirty or now_is != before
            # A running clock (time left) is shown anew each second even when nothing happens.
            second = int(time.time())
            if now_is == "running" and second != shown_second:
                dirty = True
            if now_is == "running" and time.monotonic() - self._looked_around > AROUND_EVERY:
                self._around, self._looked_around = look_around(), time.monotonic()
            if dirty:
                dirty, shown_second = False, second
                self._tell(now_is)
            if self._wake.wait(POLL):  # somebody looks elsewhere
                self._wake.clear()
                dirty = True

    def _skim(self) -> None:
        """Show how the run stands before its long log is read step by step."""
        try:
            if self.run.events.stat().st_size < LONG:
                return
        except OSError:
            return
        tail, state, eta = Tail(self.run.events), RunState(), Eta()
        while (events := tail.skim(CHUNK)) and not self._stop.is_set():
            state.apply_all(events)
            for event in events:
                eta.apply(event)
            time.sleep(BREATH)
        self._tell(status(self.run, state), state, eta)

    def _tell(self, now_is: str, state: RunState | None = None, eta: Eta | None = None) -> None:
        lines = list(self._lines)
        self._lines.clear()
        self.shown = state or self.state
        view = view_of(self.shown, now_is, eta or self._eta, time.time(), self._look, self._around)
        self._deliver(Update(view, lines))
