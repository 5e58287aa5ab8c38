"""The guided way on the disk: written at every step, so that neither an error nor a crash of the app loses it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from engine.runs.directory import home
from engine.runs.files import write_atomically
from tui.wizard.state import Wizard, from_json, to_json


def place() -> Path:
    return home() / "wizard.json"


def keep(wizard: Wizard) -> None:
    """Write it down; a disk that refuses costs the memory of the way, never the way itself."""
    try:
        home().mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(place(), json.dumps(to_json(wizard)))
    except OSError:
        pass


def kept() -> Wizard | None:
    """The way that was begun and not finished; None if there is none or it cannot be read."""
    try:
        wizard = from_json(json.loads(place().read_text(encoding="utf-8")))
    except (OSError, ValueError):  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        return None
    return wizard if wizard.begun() else None


def forget() -> None:
    """It was finished, or thrown away."""
    try:
        os.unlink(place())
    except OSError:
        pass
