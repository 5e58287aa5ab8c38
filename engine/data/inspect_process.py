"""An inspection in a process of its own, so that whoever watches never waits: ``python -P -m engine.data.inspect_process``.

Reads one JSON object from standard input (the arguments of ``inspect``); writes JSON lines: progress, then the result.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from recipes.errors import InputError, Problem

EVERY = 0.2
"""Seconds between two words of progress."""


def main() -> int:
    asked = json.load(sys.stdin)
    print(json.dumps(answer(asked)), flush=True)
    return 0


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """``{"found": …}`` as ``Inspection.to_json``, or ``{"problems": […]}``, with ``readings`` where one must be chosen."""
    from engine.data.hub import fetch_missing
    from engine.data.inspect import Ambiguous, inspect
    from recipes.resources import resolve_source

    last = 0.0

    def told(done: int, size: int, rows: int) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            print(json.dumps({"done": done, "size": size, "rows": rows}), flush=True)

    def fetched(done: int, size: int) -> None:
        nonlocal last
        if time.monotonic() - last >= EVERY:
            last = time.monotonic()
            print(json.dumps({"done": done, "size": size, "fetching": True}), flush=True)

    try:
        fetch_missing([asked["path"], asked.get("heldout")], Path.cwd(), fetched, "data")
        path = resolve_source(asked["path"], Path.cwd(), "data")
        heldout = resolve_source(asked["heldout"], Path.cwd(), "held out") if asked.get("heldout") else None
        found = inspect(
            path, asked.get("method"), asked.get("columns") or None, heldout, asked.get("model"), asked.get("limit"), told,
            asked.get("verifier"),
        )  # fmt: skip
    except Ambiguous as error:
        readings = [asdict(reading) for reading in error.readings]
        return {"problems": _plain(error.problems), "readings": readings, "columns": error.columns}
    except InputError as error:
        return {"problems": _plain(error.problems)}
    except MemoryError:
        said = "more in one row than the memory holds"
        return {"problems": _plain([Problem(str(asked["path"]), None, None, said, "smaller rows")])}
    return {"found": found.to_json()}


def _plain(problems: list[Problem]) -> list[dict[str, Any]]:
    return [asdict(problem) | {"says": str(problem)} for problem in problems]


if __name__ == "__main__":
    sys.exit(main())
