"""What runs inside: one line of JSON says what to be, then one line in, one line out, until the owner closes.

The owner compares; nothing of what is right comes in here. Values go out only as plain JSON types, by exact type, so that
an ``int`` with an equality of its own arrives as nothing at all. Standard library only.
"""

from __future__ import annotations

import functools
import importlib
import io
import json
import os
import sys
from collections.abc import Callable
from typing import Any

PLAIN = (type(None), bool, int, float, str)
_type = type


def serve(channel: int) -> None:
    """Answer requests on ``channel`` until it closes. ``become`` of the first decides what is answered."""
    lines = _lines(channel)
    first = json.loads(next(lines))
    become = {"function": _function, "script": _script, "verifier": _verifier, "task": _task, "program": _program}
    handler = _guarded(channel, lambda: become[first["become"]](first))
    if handler is None:
        return
    _write(channel, {"ready": True})
    for line in lines:
        request = json.loads(line)
        if "alive" in request:  # a word to be sent back
            _write(channel, {"output": request["alive"]})
            continue
        answer = _guarded(channel, functools.partial(_answer, handler, request))
        if answer is not None:
            _write(channel, answer)


def _answer(handler: Callable[[Any], Any], request: Any) -> dict[str, Any]:
    return {"output": handler(request)}


def _guarded(channel: int, work: Callable[[], Any]) -> Any:
    """The result, or None after the error has been told. SystemExit is let through: an exit is an exit."""
    try:
        return work()
    except SystemExit:
        raise
    except BaseException as error:
        _write(channel, {"error": f"{type(error).__name__}: {error}"[:400]})
        return None


def plain(value: Any) -> Any:
    """The same value in JSON's types alone (a tuple is a list). TypeError for anything else, subclasses included."""
    kind = _type(value)
    if kind in PLAIN:
        return value
    if kind is list or kind is tuple:
        return [plain(item) for item in value]
    if kind is dict and all(_type(key) is str for key in value):
        return {key: plain(item) for key, item in value.items()}
    raise TypeError(f"a {kind.__name__} is no plain value")


def _function(first: dict[str, Any]) -> Callable[[Any], Any]:
    """A function of the candidate's source, called with each request's ``input``."""
    space = _run(first["source"])
    called = space[first["entry"]]

    def call(request: dict[str, Any]) -> Any:
        given = request["input"]
        return plain(called(*given) if isinstance(given, list) else called(given))

    return call


def _script(first: dict[str, Any]) -> Callable[[Any], Any]:
    """The candidate's source run anew for each request: ``input`` is its standard input, what it prints the result."""
    code = compile(first["source"], "completion.py", "exec")

    def call(request: dict[str, Any]) -> str:
        printed = io.StringIO()
        sys.stdin, sys.stdout = io.StringIO(str(request["input"])), printed
        exec(code, {"__name__": "__main__"})
        return str(printed.getvalue())

    return call


def _verifier(first: dict[str, Any]) -> Callable[[Any], Any]:
    """A user's verifier file: its function is called with prompt, completion and answer."""
    called = _run(first["source"])[first["entry"]]
    return lambda request: plain(called(request["prompt"], request["completion"], request["answer"]))


def _task(first: dict[str, Any]) -> Callable[[Any], Any]:
    """A function of our own that may hang or crash (sympy, regular expressions)."""
    called = getattr(importlib.import_module(first["module"]), first["entry"])
    return lambda request: plain(called(*request["input"]))


def _program(first: dict[str, Any]) -> Callable[[Any], Any]:
    """Become another program, which speaks the same lines on its standard input and output."""
    _write(3, {"ready": True})  # and only then is it asked: nothing of a question is in our buffer
    os.dup2(3, 0)
    os.dup2(3, 1)
    os.execv(first["path"], [first["path"]])


def _run(source: str) -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "completion"}
    exec(compile(source, "completion.py", "exec"), space)
    return space


def _lines(channel: int) -> Any:
    rest = b""
    while True:
        data = os.read(channel, 1 << 16)
        if not data:
            return
        *lines, rest = (rest + data).split(b"\n")
        yield from lines


def _write(channel: int, answer: dict[str, Any]) -> None:
    data = json.dumps(answer).encode() + b"\n"
    while data:
        data = data[os.write(channel, data) :]
