"""Evaluation results on disk: what was measured once is not measured again after a resume."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.evaluate.measurement import Measurement
from engine.runs.files import write_atomically


class Results:
    """One JSON file per evaluation under ``stages/NN-method/evaluations``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def measured(self, name: str, measure: Callable[[], list[Measurement]]) -> list[Measurement]:
        """The measurements called ``name``, from disk or measured now."""
        stored = self.read(name)
        if stored is not None:
            return stored
        fresh = measure()
        self._write(name, [measurement.to_json() for measurement in fresh])
        return fresh

    def forget_after(self, step: int, last: int) -> None:
        """Drop what was measured on weights that a resume from ``step`` no longer has (``last``: the stage's steps)."""
        for path in self.folder.glob("*.json"):
            _, _, number = path.stem.rpartition("-")
            measured_at = last if path.stem == "after" else int(number) if number.isdigit() else 0
            if measured_at > step:
                path.unlink()

    def value(self, name: str, compute: Callable[[], Any]) -> Any:
        """Any JSON value, computed once (such as the start's log-probabilities of the held-out pairs)."""
        stored = self._read(name)
        if stored is None:
            stored = compute()
            self._write(name, stored)
        return stored

    def stored_value(self, name: str) -> Any:
        """What ``value`` computed under that name, or None."""
        return self._read(name)

    def read(self, name: str) -> list[Measurement] | None:
        """Stored measurements, or None if that evaluation has not been made."""
        stored = self._read(name)
        return None if stored is None else [Measurement.from_json(item) for item in stored]

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def _write(self, name: str, value: Any) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / f"{name}.json", json.dumps(value, allow_nan=False))
