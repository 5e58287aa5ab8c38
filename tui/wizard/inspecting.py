"""An inspection from the screen's side: a helper process that can be called off, its progress and its result."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.data.rows import data_files
from recipes.errors import InputError, Problem
from recipes.resources import resolve_source
from tui.background import BESIDE


@dataclass(frozen=True)
class Asked:
    """What is to be looked over; the same question is not asked twice."""

    path: str
    method: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    heldout: str = ""
    model: str | None = None
    limit: int | None = None
    verifier: dict[str, Any] | None = None
    """A recipe's ``verifier:``, to be tried on the answers."""


@dataclass(frozen=True)
class Looked:
    """What came of it: ``found`` as ``Inspection.to_json``, or problems; ``readings`` where one must be chosen."""

    asked: Asked
    found: dict[str, Any] | None = None
    problems: tuple[Problem, ...] = ()
    readings: tuple[dict[str, Any], ...] = ()
    columns: tuple[str, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether a run would take the data: no faults, and the method can be served."""
        return self.found is not None and not self.all_problems and not self.unserved

    @property
    def all_problems(self) -> tuple[Problem, ...]:
        return self.problems or tuple(Problem(**one) for one in (self.found or {}).get("problems", ()))

    @property
    def unserved(self) -> str:
        """Why the method cannot use the data at all; empty where it can."""
        for one in (self.found or {}).get("serves", ()):
            if one["method"] == self.asked.method and one["verdict"] == "no":
                return str(one["why"])
        return ""


KNOWN, MOST_STAMPED = 8, 1000
_KNOWN: dict[str, Looked] = {}
"""The last answers: who goes back and forth between pages does not wait again for what has not changed."""


def stamped(asked: Asked) -> str | None:
    """The question with the state of its files; None where they cannot be told."""
    files: list[Path] = []
    try:
        for word in filter(None, (asked.path, asked.heldout)):
            path = resolve_source(word, Path.cwd(), "data")
            files += data_files(path) if path.is_dir() else [path]
        stamps = [(str(file), (now := file.stat()).st_size, now.st_mtime_ns) for file in files[:MOST_STAMPED]]
    except (InputError, OSError):
        return None
    return None if len(files) > MOST_STAMPED else repr((asked, stamps))


class Inspector:
    """One inspection. ``told(done, size, rows)`` (rows None: it is being fetched from the hub) and ``ended`` are called in its
    own thread."""

    def __init__(
        self, asked: Asked, ended: Callable[[Looked], None], told: Callable[[int, int, int | None], None] | None = None
    ) -> None:
        self.asked, self._ended, self._told = asked, ended, told
        self._process: subprocess.Popen[bytes] | None = None
        self._off = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name=BESIDE)

    def start(self) -> None:
        self._thread.start()

    def cancel(self) -> None:
        """Nothing is told any more, and the helper ends."""
        self._off.set()
        if self._process is not None and self._process.poll() is None:
            self._process.kill()

    def _run(self) -> None:
        answer = self._ask()
        if not self._off.is_set():
            self._ended(answer)

    def _ask(self) -> Looked:
        stamp = stamped(self.asked)
        if stamp is not None and stamp in _KNOWN:
            return _KNOWN[stamp]
        answer = self._helped()
        if stamp is not None and answer.found is not None:
            while len(_KNOWN) >= KNOWN:
                _KNOWN.pop(next(iter(_KNOWN)), None)
            _KNOWN[stamp] = answer
        return answer

    def _helped(self) -> Looked:
        asked = self.asked
        words = {
            "path": asked.path, "method": asked.method, "columns": asked.columns, "heldout": asked.heldout,
            "model": asked.model, "limit": asked.limit, "verifier": asked.verifier,
        }  # fmt: skip
        with subprocess.Popen(
            [sys.executable, "-P", "-m", "engine.data.inspect_process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, start_new_session=True,
        ) as process:  # fmt: skip
            self._process = process
            if self._off.is_set():
                process.kill()
            assert process.stdin is not None and process.stdout is not None
            said: dict[str, Any] = {}
            try:
                process.stdin.write(json.dumps(words).encode())
                process.stdin.close()
                for line in process.stdout:
                    said = json.loads(line)
                    if "done" in said and self._told and not self._off.is_set():
                        self._told(said["done"], said["size"], None if said.get("fetching") else said["rows"])
            except (OSError, ValueError):
                said = {}
        if "found" in said:
            return Looked(asked, found=said["found"])
        if "problems" in said:
            problems = tuple(Problem(**{k: v for k, v in one.items() if k != "says"}) for one in said["problems"])
            return Looked(asked, None, problems, tuple(said.get("readings", ())), tuple(said.get("columns", ())))
        ended = f"the inspection ended with exit code {process.returncode}"
        return Looked(asked, None, (Problem(asked.path, None, None, ended, "`finetune-tui data` on it says more"),))
