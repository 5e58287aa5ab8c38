"""A stage's line to its supervisor: standard input is one end of a socket pair, events up and commands down.

File descriptor 0 is what every launcher passes on to every rank, so one mechanism serves a plain process and
``accelerate launch`` alike. When the other end closes, the supervisor is gone and the process ends itself at once.
"""

from __future__ import annotations

import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from engine.runs.events import Event, HeartbeatEvent, encode
from engine.runs.exitcodes import ORPHANED

HEARTBEAT = 2.0


class Channel:
    """``emit`` events, ask for ``pending`` commands. Ranks above 0 do neither; they only end with the supervisor."""

    def __init__(self, connection: socket.socket | None, sink: Callable[[Event], None] | None = None) -> None:
        self._connection = connection
        self._sink = sink
        self._sending = threading.Lock()
        self._command: dict[str, Any] | None = None
        self._closed = threading.Event()

    @classmethod
    def from_stdin(cls) -> Channel:
        """The channel of this process. Standard input itself becomes empty, so that no library reads from it."""
        connection = socket.socket(fileno=os.dup(0))
        connection.setblocking(True)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        leader = os.environ.get("RANK", "0") == "0"
        channel = cls(connection if leader else None)
        threading.Thread(target=channel._listen if leader else _watch, args=(connection,), daemon=True).start()
        if leader:
            threading.Thread(target=channel._beat, daemon=True).start()
        return channel

    @classmethod
    def recording(cls, events: list[Event]) -> Channel:
        """A channel that only collects, for running a stage by hand."""
        return cls(None, events.append)

    def emit(self, event: Event) -> None:
        """Send an event; blocks while the supervisor is behind (a full disk, say)."""
        event.time = event.time or time.time()
        if self._sink is not None:
            self._sink(event)
        if self._connection is None:
            return
        line = encode(event)
        try:
            with self._sending:
                self._connection.sendall(line)
        except OSError:
            os._exit(ORPHANED)

    def pending(self) -> dict[str, Any] | None:
        """The pause or stop that was asked for, if any; it stays until the process ends."""
        return self._command

    def command(self, command: dict[str, Any]) -> None:
        """Receive a command (from the supervisor, or from a test)."""
        self._command = command

    def close(self) -> None:
        """Say nothing more; the process is about to end."""
        self._closed.set()

    def _listen(self, connection: socket.socket) -> None:
        buffer = b""
        while True:
            try:
                data = connection.recv(65536)
            except OSError:
                data = b""
            if not data:
                if not self._closed.is_set():
                    os._exit(ORPHANED)
                return
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                self.command(json.loads(line))

    def _beat(self) -> None:
        while not self._closed.wait(HEARTBEAT):
            self.emit(HeartbeatEvent())


def _watch(connection: socket.socket) -> None:
    """End this rank when the supervisor's end closes, without taking a byte that is meant for rank 0."""
    poll = select.poll()
    poll.register(connection, 0)  # hang-up and errors are always reported
    poll.poll()
    os._exit(ORPHANED)
