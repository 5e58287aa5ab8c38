"""What a stage takes and gives: a base that is never modified, one adapter, edits, vectors, confidence settings."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.runs.files import write_atomically

if TYPE_CHECKING:
    from engine.runs.directory import RunDirectory


@dataclass(frozen=True)
class Base:
    """``path`` is absolute, or relative to the run directory; ``files`` maps names to sha256."""

    id: str
    path: str
    revision: str | None
    files: dict[str, str]


@dataclass(frozen=True)
class Adapter:
    """A PEFT adapter; ``path`` is relative to the run directory."""

    path: str
    sha256: str


@dataclass(frozen=True)
class Lineage:
    base: Base
    adapter: Adapter | None = None
    edits: list[Any] = field(default_factory=list)
    vectors: list[Any] = field(default_factory=list)
    confidence: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def write_lineage(path: Path, lineage: Lineage) -> None:
    write_atomically(path, json.dumps(lineage.to_json(), indent=1))


def read_lineage(path: Path) -> Lineage:
    data = json.loads(path.read_text(encoding="utf-8"))
    adapter = None if data["adapter"] is None else Adapter(**data["adapter"])
    return Lineage(Base(**data["base"]), adapter, data["edits"], data["vectors"], data["confidence"])


def lineage_in(run: RunDirectory, index: int) -> Lineage:
    """What stage ``index`` starts from: the output of the stage before it, or the base model."""
    if index == 0:
        return Lineage(Base(**json.loads(run.model.read_text(encoding="utf-8"))))
    return read_lineage(run.output_folder(index - 1) / "lineage.json")


def newest_lineage(run: RunDirectory, stages: int) -> Lineage | None:
    """The lineage of the last finished stage, the base if none has finished, None while there is no model yet."""
    for index in reversed(range(stages)):
        path = run.output_folder(index) / "lineage.json"
        if path.is_file():
            return read_lineage(path)
    return lineage_in(run, 0) if run.model.is_file() else None


def hash_files(folder: Path) -> dict[str, str]:
    """sha256 of every file directly in a model or adapter folder."""
    hashes = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            with open(path, "rb") as file:
                hashes[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashes
