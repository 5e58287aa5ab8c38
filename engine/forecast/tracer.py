"""The process that traces: started once, asked as often as the figures change, ended when nobody asks any more.

Importing the training libraries takes several times as long as a trace; whoever turns a remedy on and off would wait for
it each time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

MODULE = "engine.backends.pytorch.trace"
IDLE = 60
"""Seconds without a question after which the helper ends by itself: the libraries hold half a gigabyte."""


class TimedOut(Exception):
    """No answer in time; the helper was ended."""


class Ended(Exception):
    """The helper is gone; the message says how."""


class Tracer:
    """One helper at a time, and one question: whoever asks meanwhile waits in line."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._knows_bitsandbytes = False
        self._line = threading.Lock()
        self._cancelled = 0
        self._together: ContextVar[int | None] = ContextVar("together", default=None)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What this thread asks inside is one question of several parts: letting go of one lets go of those to come."""
        token = self._together.set(self._cancelled)
        try:
            yield
        finally:
            self._together.reset(token)

    def ask(self, description: dict[str, Any], timeout: float) -> dict[str, Any]:
        """The answer of ``MODULE`` to a description. Raises TimedOut, or Ended when the helper died or was let go."""
        quantized = description["settings"]["quantization"] != "none"
        with self._line:
            cancelled = self._together.get()
            if cancelled is None:
                cancelled = self._cancelled
            elif cancelled != self._cancelled:
                raise Ended("the helper was let go before this was asked")
            fresh = self._ready(quantized)
            try:
                return self._answer(description, timeout)
            except Ended:
                if fresh or cancelled != self._cancelled:
                    raise
                self._ready(quantized)  # it had just ended of idleness, or was killed by somebody: one more
                return self._answer(description, timeout)
            except BaseException:
                self._end()
                raise

    def let_go(self) -> None:
        """End the helper, whatever it is doing; who waits for its answer learns that it ended."""
        self._cancelled += 1
        self._end()

    def _end(self) -> None:
        process = self._process
        if process is not None:
            process.kill()
            process.wait()

    def _ready(self, quantized: bool) -> bool:
        """A helper that can answer; whether it was started for this question."""
        alive = self._process is not None and self._process.poll() is None
        if alive and (self._knows_bitsandbytes or not quantized):
            return False
        self._close()
        self._knows_bitsandbytes = quantized
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE, str(IDLE), *(["--quantized"] if quantized else [])],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=environment, start_new_session=True,
        )  # fmt: skip
        return True

    def _answer(self, description: dict[str, Any], timeout: float) -> dict[str, Any]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        deadline, answer = time.monotonic() + timeout, b""
        try:
            process.stdin.write(json.dumps(description).encode() + b"\n")
            process.stdin.flush()
            while not answer.endswith(b"\n"):
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                    self._end()
                    raise TimedOut
                more = os.read(process.stdout.fileno(), 1 << 16)
                if not more:
                    raise Ended(f"the helper ended with exit code {process.wait()}")
                answer += more
        except BrokenPipeError:
            raise Ended(f"the helper ended with exit code {process.wait()}") from None
        found = json.loads(answer)
        assert isinstance(found, dict)
        return found

    def _close(self) -> None:
        if self._process is not None:
            self._end()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # what it did not read any more
                        pipe.close()


TRACER = Tracer()
"""This process's."""
