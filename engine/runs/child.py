"""A child process of the supervisor and the socket pair between them."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from engine.runs.events import AlertEvent, AnyEvent, ExitEvent, HeartbeatEvent, decode
from engine.runs.exitcodes import WORDS

LOGGED_HEARTBEAT = 10.0
"""Seconds between two heartbeats that go into the log; the others only keep the child from being thought dead."""


@dataclass(frozen=True)
class ChildResult:
    pid: int
    code: int | None
    signal: int | None
    says: str
    """How it ended, in words, with the end of what it printed if it crashed."""


class Child:
    """Started on creation, in a process group of its own, with our end of a socket pair as its standard input."""

    ALERT_AFTER: ClassVar[float] = 120.0
    KILL_AFTER: ClassVar[float] = 900.0

    def __init__(
        self,
        command: list[str],
        folder: Path,
        log: Path,
        attempt: int,
        threads: int | None,
        offline: bool,
        preload: str | None = None,
    ) -> None:
        ours, theirs = socket.socketpair()
        self._log = log
        with open(log, "ab") as output:
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=child_environment(attempt, threads, offline, preload),
                start_new_session=True,
            )
        theirs.close()
        self._socket = ours
        self._buffer = b""
        self._open = True
        self._last_sign = time.monotonic()
        self._last_logged_beat = 0.0
        self._said: int | None = None
        """The exit code that the stage told, which a launcher around it would not pass on."""

    def running(self) -> bool:
        """False once the process has ended; one that has been silent for too long is killed here."""
        if self._process.poll() is not None:
            return False
        if self.silent_for() > self.KILL_AFTER:
            self.kill()
        return True

    def silent_for(self) -> float:
        return time.monotonic() - self._last_sign

    def send(self, command: dict[str, Any]) -> None:
        try:
            self._socket.sendall(json.dumps(command).encode() + b"\n")
        except OSError:  # it has just ended
            self._open = False

    def receive(self, timeout: float) -> list[AnyEvent]:
        """Events that arrived within ``timeout`` seconds."""
        if not self._open:
            time.sleep(timeout)
            return []
        ready, _, _ = select.select([self._socket], [], [], timeout)
        if not ready:
            return []
        try:
            data = self._socket.recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            self._open = False
            return []
        self._last_sign = time.monotonic()
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        events = [event for line in lines if (event := self._decoded(line)) is not None]
        for event in events:
            if isinstance(event, ExitEvent):
                self._said = event.code
        return [event for event in events if not isinstance(event, ExitEvent)]

    def rest(self) -> list[AnyEvent]:
        """What is still in the pipe after the process has ended. Anything else of its group is killed, so that no
        rank or launcher outlives it."""
        events = []
        deadline = time.monotonic() + 2.0
        while self._open and time.monotonic() < deadline:
            events += self.receive(0.1)
        self.kill()
        if self._buffer:
            text = f"the process ended in the middle of an event ({len(self._buffer)} bytes dropped)"
            events.append(AlertEvent(level="warning", code="torn-event", text=text, time=time.time()))
        self._socket.close()
        return events

    def kill(self) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def result(self) -> ChildResult:
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            return ChildResult(self._process.pid, None, -code, f"killed by {name}{self._out_of_memory(-code)}")
        code = code if self._said is None else self._said
        words = WORDS.get(code) or f"ended with code {code}{self._last_words()}"
        return ChildResult(self._process.pid, code, None, words)

    def _out_of_memory(self, number: int) -> str:
        return " (by the user, or by the system when memory ran out)" if number == signal.SIGKILL else ""

    def _last_words(self) -> str:
        """The last line that the process printed: for a crash, the exception."""
        with open(self._log, "rb") as file:
            file.seek(max(self._log_start, os.fstat(file.fileno()).st_size - 4096))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
        return f": {lines[-1].strip()}" if lines else ""

    def _decoded(self, line: bytes) -> AnyEvent | None:
        try:
            event = decode(line)
        except msgspec.DecodeError:
            text = f"the process sent something that is no event: {line[:80]!r}"
            return AlertEvent(level="warning", code="no-event", text=text, time=time.time())
        if isinstance(event, HeartbeatEvent):
            if time.monotonic() - self._last_logged_beat < LOGGED_HEARTBEAT:
                return None
            self._last_logged_beat = time.monotonic()
        return event


def child_environment(attempt: int, threads: int | None, offline: bool, preload: str | None = None) -> dict[str, str]:
    """The child's environment: no network unless it fetches, no telemetry, our own packages and not the user's folder.

    ``preload`` is a shared library that comes before all others (engine/runs/blas.py).
    """
    environment = dict(os.environ)
    environment.update(
        HF_HUB_DISABLE_TELEMETRY="1",
        HF_HUB_DISABLE_XET="1",
        TOKENIZERS_PARALLELISM="false",
        TRL_EXPERIMENTAL_SILENCE="1",
        PYTHONUNBUFFERED="1",
        PYTHONSAFEPATH="1",
        FINETUNE_TUI_ATTEMPT=str(attempt),
    )
    if offline:
        environment.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_DATASETS_OFFLINE="1")
        # A stage has its model already: whatever it is made to run must not find the user's token.
        environment.pop("HF_TOKEN", None)
    if threads:
        environment["OMP_NUM_THREADS"] = str(threads)
    if preload:
        others = environment.get("LD_PRELOAD", "")
        environment["LD_PRELOAD"] = f"{preload} {others}".strip()
    return environment
