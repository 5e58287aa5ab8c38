"""A search's memory: one JSON object a line, each on the disk before the search goes on, a torn last one cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.runs.files import sync_file
from recipes.errors import InputError, Problem


class Journal:
    """Append-only; one writer. ``entries`` is what is on the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Any] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            self._read()

    def _read(self) -> None:
        """Raises InputError when a line before the last is no JSON: then it isn't a kill that did it."""
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                self.entries.append(json.loads(line))
            except ValueError:
                raise self.broken(f"a line that is no JSON: {line[:60]!r}", number) from None
        if len(whole) < len(data):
            with open(self.path, "r+b") as file:
                file.truncate(len(whole))
                sync_file(file.fileno())

    def broken(self, found: str, line: int | None = None) -> InputError:
        accepted = "the search as this stage wrote it; remove the file and `resume` to search anew"
        return InputError([Problem(str(self.path), line, None, found, accepted)])

    def append(self, *entries: Any) -> None:
        text = "".join(json.dumps(entry, separators=(",", ":"), ensure_ascii=False) + "\n" for entry in entries)
        with open(self.path, "ab") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            sync_file(file.fileno())
        self.entries += entries
