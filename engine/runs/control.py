"""Commands to a run as small files: written whole, read in order, removed once an event has acknowledged them."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.runs.files import write_atomically

COMMANDS = ("pause", "stop")


@dataclass(frozen=True)
class Received:
    path: Path
    command: dict[str, Any]

    @property
    def id(self) -> str:
        return self.path.stem

    def consume(self) -> None:
        self.path.unlink(missing_ok=True)


def send(folder: Path, command: dict[str, Any]) -> str:
    """Leave a command for the supervisor; the returned id appears in the event that acknowledges it."""
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{time.time_ns():020d}-{os.getpid()}"
    write_atomically(folder / f"{name}.json", json.dumps(command))
    return name


def receive(folder: Path) -> list[Received]:
    """The waiting commands, oldest first. Files that are no commands are removed."""
    found = []
    for path in sorted(folder.glob("[0-9]*.json")):
        try:
            command = json.loads(path.read_text())
        except FileNotFoundError:
            continue
        except ValueError:
            command = None
        if isinstance(command, dict):
            found.append(Received(path, command))
        else:
            path.unlink(missing_ok=True)
    return found
