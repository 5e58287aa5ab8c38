"""Our own functions that may hang or crash (tasks/), called in processes that are killed and replaced when they do."""

from __future__ import annotations

import queue
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.verify.sandbox.jails import Jail, find_jail
from engine.verify.sandbox.pool import TRIES, Guest, Limits, Sandbox

FOREVER = 1e9
"""A worker lives as long as its verifier; the limit is on each call."""
MEMORY_MIB = 2048


class Bare(Jail):
    """No jail: only for our own functions on a machine that has none, never for a user's or a model's code."""

    seccomp = False


@dataclass(frozen=True)
class Called:
    """``failure``: why there is no value, in words."""

    value: Any
    failure: str | None = None


class Workers:
    """``entry`` of a module of tasks/, called on many arguments in parallel, each at most ``seconds``."""

    def __init__(self, module: Literal["text", "symbolic"], entry: str, seconds: float) -> None:
        jail = find_jail()[0] or Bare
        limits = Limits(cpu=FOREVER, wall=FOREVER, memory_mib=MEMORY_MIB)
        self._sandbox = Sandbox(jail(), limits, preload=f"engine.verify.tasks.{module}", library=True)
        self._sandbox.start()
        self._first = {"become": "task", "module": f"engine.verify.tasks.{module}", "entry": entry}
        self._seconds = seconds
        self._idle: queue.SimpleQueue[Guest] = queue.SimpleQueue()

    def call(self, arguments: Sequence[tuple[Any, ...]]) -> list[Called]:
        """In order. Equal arguments are called once."""
        distinct: dict[str, tuple[Any, ...]] = {repr(one): one for one in arguments}
        results = self._sandbox.map(self._one, list(distinct.values()))
        found = dict(zip(distinct, results, strict=True))
        return [found[repr(one)] for one in arguments]

    def close(self) -> None:
        while not self._idle.empty():
            self._idle.get().close()
        self._sandbox.close()

    def _one(self, arguments: tuple[Any, ...]) -> Called:
        for _ in range(TRIES):
            guest, called = self._try(arguments)
            if not guest.lost:
                break
        return called

    def _try(self, arguments: tuple[Any, ...]) -> tuple[Guest, Called]:
        try:
            guest = self._idle.get_nowait()
        except queue.Empty:
            guest = self._sandbox.guest()
            started = guest.ask(self._first)
            if "ready" not in started:
                return guest, Called(None, f"the worker did not start: {started}")
        answer = guest.ask({"input": list(arguments)}, self._seconds)
        if "ended" in answer:
            return guest, Called(None, answer["ended"])
        self._idle.put(guest)
        return guest, Called(answer["output"]) if "output" in answer else Called(None, answer.get("error", "no answer"))
