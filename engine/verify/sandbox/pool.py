"""The owner's side of the sandbox: a jailed zygote, the guests it forks, and the questions put to them."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil

from engine.verify.sandbox.jails import ENVIRONMENT, ROOT, Jail, packages, python
from engine.verify.sandbox.zygote import REQUEST

BOOT = (
    "import sys, json; sys.path.insert(0, sys.argv[1]); from engine.verify.sandbox import zygote; "
    "zygote.main(json.loads(sys.argv[2]))"
)
TRIES = 3
"""For work whose sandbox died under it."""
START_SECONDS = 120.0
"""For the zygote with its imports, on a busy machine."""
GRACE_SECONDS = 5.0
"""How much later than the guest's wall time the owner gives up on the zygote itself."""
WATCH_SECONDS = 0.05
Item = TypeVar("Item")
Result = TypeVar("Result")


class SandboxError(RuntimeError):
    """The sandbox itself failed, not what ran in it."""


@dataclass(frozen=True)
class Limits:
    """Of one guest: seconds of CPU and of wall time, mebibytes of address space, bytes of one answer."""

    cpu: float = 5.0
    wall: float = 10.0
    memory_mib: int = 512
    output: int = 1 << 20


class Guest:
    """One fresh process. ``ask`` puts a question; after an "ended" answer it is gone."""

    def __init__(self, channel: socket.socket, limits: Limits) -> None:
        self._channel, self._limits = channel, limits
        self._buffer, self._received = b"", 0
        self.ended: str | None = None
        """Why it is gone, in words."""
        self.lost = False
        """Gone without the zygote's word: the sandbox died under it, which says nothing about what ran. A guest cannot
        bring that about (the zygote holds its channel too), so the work may be done again."""

    def ask(self, request: dict[str, Any], seconds: float | None = None) -> dict[str, Any]:
        """The answer, one of ``{"output": value}``, ``{"error": words}``, ``{"ready": true}``, ``{"ended": words}``."""
        if self.ended:
            return {"ended": self.ended}
        self._received = 0
        deadline = time.monotonic() + (self._limits.wall + GRACE_SECONDS if seconds is None else seconds)
        try:
            self._channel.settimeout(max(0.001, deadline - time.monotonic()))
            self._channel.sendall(json.dumps(request).encode() + b"\n")
            line = self._line(deadline)
            answer = json.loads(line, parse_constant=_no_constant)
        except TimeoutError:
            return self._end("the wall time is up")
        except OSError as error:
            self.lost = True
            return self._end(f"the sandbox died under it ({error})")
        except (ValueError, RecursionError):
            return self._end("it did not answer in plain JSON")
        if not isinstance(answer, dict) or len(answer) != 1 or next(iter(answer)) not in KINDS:
            return self._end("it did not answer in the agreed form")
        if "ended" in answer:
            return self._end(str(answer["ended"])[:200])
        return answer

    def alive(self) -> bool:
        """True if it is still there and has answered each question once: a word that it could not know comes back."""
        word = secrets.token_hex(8)
        return self.ask({"alive": word}) == {"output": word}

    def close(self) -> None:
        """The zygote kills the process when the channel closes."""
        self._channel.close()

    def _end(self, why: str) -> dict[str, Any]:
        self.ended = why
        self._channel.close()
        return {"ended": why}

    def _line(self, deadline: float) -> bytes:
        """The next line that is not empty. Raises TimeoutError, or ValueError when too much has come."""
        while True:
            line, found, rest = self._buffer.partition(b"\n")
            if found:
                self._buffer = rest
                if line:
                    return line
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._channel.settimeout(left)
            data = self._channel.recv(1 << 16)
            if not data:
                raise ConnectionResetError("closed")
            self._received += len(data)
            if self._received > self._limits.output:
                raise ValueError("too much output")
            self._buffer += data


KINDS = ("output", "error", "ready", "ended")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


class Sandbox:
    """A jailed zygote. Restarted when it dies; thread-safe.

    ``preload`` names a module of ours that every guest finds imported (tasks). ``library``: installed packages can be imported.
    ``threads`` and ``execute`` widen the system call filter for users' own verifiers. ``wall`` of Limits is the life of a guest.
    """

    def __init__(
        self,
        jail: Jail,
        limits: Limits,
        parallel: int | None = None,
        preload: str | None = None,
        library: bool = False,
        threads: bool = False,
        execute: bool = False,
    ) -> None:
        self.jail, self.limits = jail, limits
        self.parallel = parallel or max(1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2)
        folders = packages() if library else []
        if library:
            self.jail = type(jail)(extra=(*jail.extra, *folders))
        self._settings = {
            "readable": self.jail.readable(), "landlock": jail.landlock, "seccomp": jail.seccomp, "threads": threads,
            "execute": execute, "modules": [str(ROOT), *folders], "preload": preload,
        }  # fmt: skip
        self._lock = threading.Lock()
        self._closed = False
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def start(self) -> None:
        """Start the zygote now instead of at the first guest. Raises SandboxError, with what it printed."""
        with self._lock:
            self._ensure()

    def guest(self) -> Guest:
        """A fresh guest. Raises SandboxError when none can be had."""
        request = REQUEST.pack(self.limits.cpu, self.limits.wall, self.limits.memory_mib << 20)
        for attempt in (1, 2):
            ours, theirs = socket.socketpair()
            with self._lock:
                control = self._ensure()
                try:
                    socket.send_fds(control, [request], [theirs.fileno()])
                    return Guest(ours, self.limits)
                except OSError as error:  # it has died: once more with a new one
                    ours.close()
                    self._stop()
                    if attempt == 2:
                        raise SandboxError(f"the sandbox does not stay up ({error})") from error
                finally:
                    theirs.close()
        raise AssertionError

    def map(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """``work`` on every item, as many at a time as there are cores, in order."""
        # Here and not in a thread that ends: bubblewrap dies with the thread that started it.
        self.start()
        if len(items) < 2:
            return [work(item) for item in items]
        with ThreadPoolExecutor(self.parallel, thread_name_prefix="sandbox") as threads:
            return list(threads.map(work, items))

    def close(self) -> None:
        """For good: who is still at work gets SandboxError instead of a new zygote."""
        with self._lock:
            self._closed = True
            self._stop()

    def _ensure(self) -> socket.socket:
        if self._closed:
            raise SandboxError("closed")
        if self._control is not None and self._process is not None and self._process.poll() is None:
            return self._control
        self._stop()
        ours, theirs = socket.socketpair()
        command = [python(), "-I", "-S", "-B", "-c", BOOT, str(ROOT), json.dumps(self._settings)]
        with tempfile.TemporaryFile() as errors:
            try:
                self._process = subprocess.Popen(
                    self.jail.command(command), stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=errors, cwd="/",
                    env=dict(ENVIRONMENT), start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                ours.close()
                raise SandboxError(f"cannot be started ({error})") from error
            finally:
                theirs.close()
            ours.settimeout(START_SECONDS)
            try:
                ready = ours.recv(5)
            except OSError:
                ready = b""
            if ready != b"ready":
                ours.close()
                self._stop()
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip().splitlines()
                raise SandboxError(said[-1] if said else "it ended without a word")
        ours.settimeout(None)
        self._control = ours
        if self.jail.watched:
            threading.Thread(target=_watch, args=(self._process, self.limits), daemon=True).start()
        return ours

    def _stop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        process, self._process = self._process, None
        if process is None:
            return
        for child in _tree(process.pid):
            try:
                os.kill(child, signal.SIGKILL)
            except OSError:
                pass
        process.wait()


def _watch(zygote: subprocess.Popen[bytes], limits: Limits) -> None:
    """Kill the guests that outgrow their memory or outlive their time, where the jail cannot."""
    while zygote.poll() is None:
        try:
            for child in psutil.Process(zygote.pid).children():
                late = time.time() - child.create_time() > limits.wall
                if late or child.memory_info().rss > limits.memory_mib << 20:
                    child.kill()
        except psutil.Error:
            pass
        time.sleep(WATCH_SECONDS)


def _tree(pid: int) -> list[int]:
    """The process and all below it."""
    try:
        one = psutil.Process(pid)
        return [child.pid for child in one.children(recursive=True)] + [pid]
    except psutil.NoSuchProcess:
        return [pid]
