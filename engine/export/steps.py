"""A step of an export in a process of its own, which alone imports torch or MLX: a request in, progress out."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recipes.errors import InputError, Problem

MODULE = "engine.backends.pytorch.export"
Progress = Callable[[str, float, float], None]
OPENBLAS = Path("/usr/lib/x86_64-linux-gnu/openblas-pthread/libopenblas.so.0")


class ExportFailed(Exception):
    """It could not be written or did not survive the round trip; the message says which and why."""


class Cancelled(Exception):
    """The user ended it."""


def run_step(
    request: dict[str, Any], log: Path, progress: Progress, cancelled: Callable[[], bool] = lambda: False
) -> Any:
    """The step's result. Raises InputError, ExportFailed or Cancelled; then its process has ended too."""
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false", "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1",
        "CUDA_VISIBLE_DEVICES": "",  # a run may be using it
    }  # fmt: skip
    environment.pop("HF_TOKEN", None)
    if request["step"].startswith("mlx") and sys.platform == "linux" and OPENBLAS.is_file():
        environment.setdefault("LD_PRELOAD", str(OPENBLAS))  # the wheel's own BLAS is 13 times slower
    with open(log, "ab") as words:
        start = words.tell()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words,
            env=environment, cwd=log.parent, start_new_session=True,
        )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    try:
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # it ended at once; what it printed says why
        return _listen(process, log, start, progress, cancelled)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        try:
            process.stdin.close()
        except BrokenPipeError:
            pass


def _listen(process: Any, log: Path, start: int, progress: Progress, cancelled: Callable[[], bool]) -> Any:
    buffer = b""
    descriptor = process.stdout.fileno()
    while True:
        if cancelled():
            raise Cancelled
        if not select.select([descriptor], [], [], 0.2)[0]:
            continue
        block = os.read(descriptor, 65536)
        if not block:
            break
        *lines, buffer = (buffer + block).split(b"\n")
        for line in lines:
            event = json.loads(line)
            if event["kind"] == "progress":
                progress(event["what"], event["done"], event["total"])
            elif event["kind"] == "done":
                return event["result"]
            elif event["kind"] == "refused":
                raise InputError([Problem(**problem) for problem in event["problems"]])
            else:
                raise ExportFailed(event["says"])
    code = process.wait()
    with open(log, "rb") as words:
        words.seek(start)
        last = words.read().decode("utf-8", "replace").strip().splitlines()
    ending = "was killed (by the user, or by the system when memory ran out)" if code < 0 else f"ended with code {code}"
    raise ExportFailed(f"the process {ending}{': ' + last[-1] if last and code > 0 else ''} (see {log})")
