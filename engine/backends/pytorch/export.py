"""One step of an export in a process of its own: ``python -P -m engine.backends.pytorch.export``.

The request is the first line of its standard input, JSON; events go out on standard output, one JSON a line; whatever
libraries print goes to standard error. When the input ends, so does the process: no step outlives who asked for it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import traceback
from typing import Any

EVERY = 0.2


def main() -> int:
    request = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_asker, daemon=True).start()
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    last = [0.0]

    def tell(**event: Any) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    def say(what: str, done: float, total: float) -> None:
        if done >= total or time.monotonic() - last[0] > EVERY:
            last[0] = time.monotonic()
            tell(kind="progress", what=what, done=done, total=total)

    from recipes.errors import InputError

    try:
        tell(kind="done", result=_step(request, say))
        return 0
    except InputError as error:
        tell(kind="refused", problems=[vars(problem) for problem in error.problems])
        return 2
    except Exception as error:
        traceback.print_exc()
        tell(kind="failed", says=f"{type(error).__name__}: {error}")
        return 1


def _step(request: dict[str, Any], say: Any) -> Any:
    step = request["step"]
    if step == "reference":
        from engine.backends.pytorch.export_reference import write_reference

        return write_reference(request, say)
    if step == "write":
        from engine.backends.pytorch.export_write import write

        return write(request, say)
    if step == "check":
        from engine.backends.pytorch.export_check import check

        return check(request, say).to_json()
    from engine.backends import export_mlx

    return export_mlx.step(request, say)


def _end_with_the_asker() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # frameworks leave threads that can hang an orderly exit
