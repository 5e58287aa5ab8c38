"""The chat process's end of its line: standard input is a socket, as with a stage. When it closes, the process ends."""

from __future__ import annotations

import os
import queue
import socket
import threading

import msgspec

from engine.chat.messages import Command, Event, Failed, decode_command, encode
from engine.runs.exitcodes import ORPHANED


class Line:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._sending = threading.Lock()
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    @classmethod
    def from_stdin(cls) -> Line:
        """Standard input itself becomes empty, so that no library reads from it."""
        connection = socket.socket(fileno=os.dup(0))
        connection.setblocking(True)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        return cls(connection)

    def tell(self, event: Event) -> None:
        try:
            with self._sending:
                self._connection.sendall(encode(event))
        except OSError:
            os._exit(ORPHANED)

    def wait(self) -> Command:
        """The next command."""
        return self._commands.get()

    def waiting(self) -> Command | None:
        """A command that has come already, or None."""
        try:
            return self._commands.get_nowait()
        except queue.Empty:
            return None

    def _listen(self) -> None:
        buffer = b""
        while True:
            try:
                data = self._connection.recv(65536)
            except OSError:
                data = b""
            if not data:  # whoever talked is gone: no model stays in memory for nobody
                os._exit(ORPHANED)
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                try:
                    self._commands.put(decode_command(line))
                except msgspec.DecodeError as error:
                    self.tell(Failed(f"no command: {line[:80]!r} ({error})"))
