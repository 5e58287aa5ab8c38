"""Start a chat process and talk with it. Nothing here imports a training library."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable

import msgspec

from engine.chat.messages import Command, Event, Failed, decode_event, encode
from engine.chat.places import backend_of, find_place
from engine.runs.blas import openblas
from engine.runs.child import child_environment
from engine.runs.directory import RunDirectory
from engine.runs.exitcodes import ORPHANED
from recipes.errors import InputError
from recipes.load import load_recipe

PATIENCE = 3.0
"""Seconds that the process is given to end by itself once its line is closed."""


class ChatProcess:
    """Started on creation; ``hear`` is called with every event, in a thread of its own."""

    def __init__(self, run: RunDirectory, stage: str, compare: str, hear: Callable[[Event], None]) -> None:
        ours, theirs = socket.socketpair()
        run.logs.mkdir(exist_ok=True)
        self.log = run.logs / "chat.log"
        with open(self.log, "wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "engine.chat", str(run.path), stage, compare],
                stdin=theirs.fileno(),
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=run.path,
                env=child_environment(0, load_recipe(str(run.recipe)).recipe.threads, True, _preload(run, stage)),
                start_new_session=True,  # Ctrl+C is for whoever talks, not for the model
            )
        theirs.close()
        self._socket, self._hear = ours, hear
        self._closing = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, command: Command) -> None:
        try:
            self._socket.sendall(encode(command))
        except OSError:  # it has just ended; the listener says so
            pass

    def close(self) -> None:
        """End the process and wait until it is gone. May be called twice."""
        self._closing = True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if threading.current_thread() is not self._listener:
            self._listener.join(PATIENCE)
        self._socket.close()

    def exit_code(self) -> int | None:
        return self._process.poll()

    def _listen(self) -> None:
        buffer = b""
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                break
            *lines, buffer = (buffer + data).split(b"\n")
            for line in lines:
                try:
                    event = decode_event(line)
                except msgspec.DecodeError:
                    event = Failed(f"the chat process sent something that is no event: {line[:80]!r}")
                self._hear(event)
        if not self._closing:
            self._hear(Failed(self._how_it_ended(), fatal=True))

    def _how_it_ended(self) -> str:
        code = self._process.wait()
        if code == ORPHANED:
            return "the chat process lost its line"
        if code < 0:
            killed = " (by the user, or by the system when memory ran out)" if code == -signal.SIGKILL else ""
            return f"the chat process was killed by {signal.Signals(-code).name}{killed}"
        with open(self.log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4096))
            words = file.read().decode("utf-8", "replace").strip().splitlines()
        return f"the chat process ended with code {code}" + (f": {words[-1].strip()}" if words else "")


def _preload(run: RunDirectory, stage: str) -> str | None:
    """The fast BLAS where MLX talks; a stage that cannot be talked with is refused by the process, in its words."""
    try:
        return openblas() if backend_of(run, find_place(run, stage)) == "mlx" else None
    except InputError:
        return None
