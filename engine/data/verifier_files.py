"""Files that a stage's verifier names, such as a user's own Python verifier: copied into the run, found there again."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FOLDER = "verifier"
FIELDS = ("path", "json_schema")


def named_files(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(field, path as the recipe has it) of every file of a verifier and of the parts of a sum."""
    for field in FIELDS:
        if isinstance(spec.get(field), str):
            yield field, spec[field]
    for index, part in enumerate(spec.get("components") or []):
        for field, path in named_files(part["verifier"]):
            yield f"components.{index}.verifier.{field}", path


def keep_files(spec: Mapping[str, Any], paths: Mapping[str, Path], into: Path) -> None:
    """Copy them, each under a name of its own; a program stays executable."""
    for _, path in named_files(spec):
        (into / FOLDER).mkdir(parents=True, exist_ok=True)
        shutil.copy(paths[path], into / FOLDER / _kept(path))


def kept_spec(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The spec with the names under which ``keep_files`` keeps its files."""
    found = {name: _kept(value) if name in FIELDS and isinstance(value, str) else value for name, value in spec.items()}
    if spec.get("components"):
        found["components"] = [{**part, "verifier": kept_spec(part["verifier"])} for part in spec["components"]]
    return found


def _kept(path: str) -> str:
    return f"{hashlib.sha256(path.encode()).hexdigest()[:8]}-{Path(path).name}"
