"""Watching a run in plain text: the log's tail through the reducer, as lines and (on a terminal) one live line."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from typing import Literal, TextIO

from engine.report import duration, figure
from engine.runs.directory import RunDirectory, status
from engine.runs.events import AnyEvent, encode
from engine.runs.exitcodes import FAILED
from engine.runs.log import Tail
from engine.runs.state import RunState, StageState
from tui.eta import Eta
from tui.view.event_words import event_words, stage_words

POLL = 0.25
PLAIN_EVERY = 2.0
"""Seconds between two progress lines without a terminal."""
SHOWN = ("loss", "kl", "reward", "tokens_per_second")


def watch(run: RunDirectory, out: TextIO, style: Literal["live", "plain", "json"]) -> int:
    """Follow the run to its end and return its exit code; Ctrl+C stops watching, never the run."""
    view = Monitor(run, out, style)
    with _asked_to_leave(view):
        code = view.follow()
    if code is not None:
        return code
    view.clear()
    if style != "json":
        print(f"\nleft; the run goes on. `finetune-tui attach {run.id}` comes back to it", file=out)
    return 0


@contextlib.contextmanager
def _asked_to_leave(view: Monitor) -> Iterator[None]:
    """Ctrl+C says so, wherever it comes: an exception would be lost where Python cannot raise one, in a finalizer say,
    and a lock, as an event has, may be held by the very code that the signal interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(*_: object) -> None:
        view.leaving = True

    before = signal.signal(signal.SIGINT, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Monitor:
    def __init__(self, run: RunDirectory, out: TextIO, style: Literal["live", "plain", "json"]) -> None:
        self.run, self.out, self.style = run, out, style
        self.state = RunState()
        self.eta = Eta()
        self.leaving = False
        self._live = ""
        self._last_line = 0.0
        self._caught_up = False

    def follow(self) -> int | None:
        """The run's exit code once it has ended; None when asked to leave before."""
        tail = Tail(self.run.events)
        while not self.leaving:
            events = tail.read()
            for event in events:
                self._take(event)
            if not events:
                if not self._caught_up:
                    self._caught_up = True
                    self._heading()
                self._progress()
                if self._ended():
                    self.clear()
                    self._summary()
                    return FAILED if self.state.code is None else self.state.code
                time.sleep(POLL)
        return None

    def _ended(self) -> bool:
        now = status(self.run, self.state)
        if now == "interrupted":
            time.sleep(2 * POLL)  # its last events may still be on their way
            return status(self.run, self.run.state()) == "interrupted"
        return now in ("paused", "stopped", "failed", "done")

    # ---- events --------------------------------------------------------------------------------------------------

    def _take(self, event: AnyEvent) -> None:
        self.state.apply(event)
        self.eta.apply(event)
        if self.style == "json":
            print(encode(event).decode().rstrip(), file=self.out, flush=True)
        elif self._caught_up:
            line = event_words(event, self.state)
            if line:
                self._print(line)

    # ---- lines ---------------------------------------------------------------------------------------------------

    def _heading(self) -> None:
        if self.style == "json":
            return
        model = self.state.detail.get("model", "?")
        plan = " -> ".join(f"{stage.method} ({stage.steps_total} steps)" for stage in self.state.stages)
        self._print(f"{self.run.id}: {plan} on {model}")
        self._print(f"runs in the background; Ctrl+C leaves it running. {self.run.path}")
        for stage in self.state.stages:
            if stage.status != "waiting":
                self._print(f"[{stage.index + 1}/{len(self.state.stages)} {stage.method}] {stage.status} so far")

    def _progress(self) -> None:
        stage = self.state.current
        if self.style == "json" or stage is None or stage.status != "running":
            return
        line = self._progress_line(stage)
        if self.style == "live":
            width = shutil.get_terminal_size().columns - 1
            self._live = line[:width]
            self.out.write(f"\r\x1b[2K{self._live}")
            self.out.flush()
        elif time.monotonic() - self._last_line >= PLAIN_EVERY and line != self._live:
            self._last_line, self._live = time.monotonic(), line
            print(line, file=self.out, flush=True)

    def _reward_word(self, stage: StageState) -> str:
        described = self.state.detail.get("stages", [])
        gates = described[stage.index].get("gates", {}) if stage.index < len(described) else {}
        return "margin" if "preference_gap" in gates else "reward"

    def _progress_line(self, stage: StageState) -> str:
        parts = [stage_words(stage.index, self.state)]
        if stage.phase in ("", "training") or not stage.phase:
            parts.append(f"step {stage.steps_done}/{stage.steps_total}")
            for name in SHOWN:
                series = stage.series.get(name)
                if series and series.values:
                    label = {"tokens_per_second": "tok/s", "reward": self._reward_word(stage)}.get(name, name)
                    parts.append(f"{label} {figure(series.values[-1])}")
            memory = stage.series.get("memory_mib")
            if memory and memory.values:
                parts.append(f"{memory.values[-1]:.0f} MiB")
        else:
            share = f" {stage.phase_done:.0f}/{stage.phase_total:.0f} {stage.phase_unit}" if stage.phase_total else ""
            parts.append(f"{stage.phase}: {stage.phase_detail}{share}")
        left_stage, left_run = self.eta.left(self.state, time.time())
        if left_stage is not None:
            parts.append(f"stage {duration(left_stage)} left")
        if left_run is not None and len(self.state.stages) > 1:
            parts.append(f"run {duration(left_run)}")
        return "  ".join(parts)

    def _print(self, line: str) -> None:
        self.clear()
        print(line, file=self.out, flush=True)

    def clear(self) -> None:
        if self.style == "live" and self._live:
            self.out.write("\r\x1b[2K")
            self.out.flush()
            self._live = ""

    def _summary(self) -> None:
        if self.style == "json":
            return
        from tui.commands.look import stage_lines

        now = status(self.run, self.state)
        took = duration((self.state.ended or time.time()) - (self.state.started or time.time()))
        words = {
            (True, "done"): f"done in {took}, all gates passed",
            (False, "done"): f"done in {took}, but a gate failed: {self.state.reason}",
        }.get((self.state.code == 0, now), f"{now}: {self.state.reason}".rstrip(": "))
        print(f"\n{self.run.id} {words}", file=self.out)
        for stage in self.state.stages:
            if stage.status != "waiting":
                print("\n".join(stage_lines(stage)), file=self.out)
        if self.run.report.exists():
            print(f"report: {self.run.report}", file=self.out)
        if now == "done":
            print(
                f"next: `finetune-tui show {self.run.id}`, the adapter is under {self.run.path / 'stages'}",
                file=self.out,
            )
        else:
            again = f"`finetune-tui resume {self.run.id}` carries on, `finetune-tui logs {self.run.id}` says more"
            print(f"next: {again}", file=self.out)
        self.out.flush()
