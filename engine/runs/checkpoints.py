"""Checkpoints that are whole or absent: staged, hashed, synced, renamed; verified before they are trusted."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.runs.files import sync_folder, sync_tree, write_atomically

MANIFEST = "manifest.json"
PASSED = "passed.json"
SPARE = 16 * 2**20
"""Bytes that must be free beyond the size of the last checkpoint before a new one is begun."""


class DiskFull(OSError):
    """No room for a checkpoint; ``needed`` is what it takes, in bytes."""

    def __init__(self, needed: int) -> None:
        super().__init__(errno.ENOSPC, f"{needed / 2**20:.0f} MiB are needed for a checkpoint")
        self.needed = needed


@dataclass(frozen=True)
class Checkpoint:
    path: Path
    step: int
    meta: dict[str, Any]


class CheckpointStore:
    """The checkpoints of one stage: ``step-000123`` folders, each with a manifest of its files' sizes and sha256."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    # ---- writing -------------------------------------------------------------------------------------------------

    def staging(self, step: int) -> Path:
        """An empty folder to write the checkpoint of ``step`` into. Raises DiskFull if it will not fit."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for leftover in self.folder.glob(".staging-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        needed = self.size_of_newest() + SPARE
        if shutil.disk_usage(self.folder).free < needed:
            raise DiskFull(needed)
        path = self.folder / f".staging-{step:06d}"
        path.mkdir()
        return path

    def seal(self, written: Path, step: int, meta: dict[str, Any]) -> Path:
        """Turn a folder that was written below ``staging(step)`` into the checkpoint of that step.

        Everything is on the disk before the rename makes it visible; a crash at any moment leaves either no such
        checkpoint or all of it. Raises DiskFull.
        """
        final = self.folder / f"step-{step:06d}"
        with self._room(written):
            files = {name: {"size": size, "sha256": digest} for name, size, digest in _files(written)}
            write_atomically(written / MANIFEST, json.dumps({"step": step, "meta": meta, "files": files}, indent=1))
            sync_tree(written)
        if final.exists():  # an attempt that went further back comes by again
            shutil.rmtree(final)
        written.rename(final)
        sync_folder(self.folder)
        shutil.rmtree(self.folder / f".staging-{step:06d}", ignore_errors=True)
        return final

    @contextlib.contextmanager
    def _room(self, written: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise DiskFull(_size(written) + SPARE) from error
            raise

    # ---- reading -------------------------------------------------------------------------------------------------

    def all(self) -> list[Path]:
        """Checkpoint folders, oldest first, unverified."""
        return sorted(self.folder.glob("step-[0-9]*")) if self.folder.is_dir() else []

    def verify(self, path: Path) -> str | None:
        """None if every file is what the manifest says, else what is wrong with it."""
        try:
            manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
            expected = manifest["files"]
        except FileNotFoundError:
            return "no manifest"
        except (ValueError, KeyError, UnicodeDecodeError):
            return "an unreadable manifest"
        for name, facts in expected.items():
            file = path / name
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != facts["size"]:
                return f"{name} has {file.stat().st_size} bytes instead of {facts['size']}"
            if _sha256(file) != facts["sha256"]:
                return f"{name} has changed since it was written"
        return None

    def newest_valid(
        self, on_invalid: Callable[[Path, str], None] | None = None, set_aside: bool = True
    ) -> Checkpoint | None:
        """The newest checkpoint whose manifest holds. Damaged ones are told to ``on_invalid`` and set aside, or only
        passed over."""
        for path in reversed(self.all()):
            wrong = self.verify(path)
            if wrong is None:
                return self._read(path)
            if on_invalid:
                on_invalid(path, wrong)
            if not set_aside:
                continue
            aside = path.with_name(f"damaged-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
        return None

    def _read(self, path: Path) -> Checkpoint:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return Checkpoint(path, int(manifest["step"]), dict(manifest["meta"]))

    def size_of_newest(self) -> int:
        """Bytes of the newest checkpoint; 0 if there is none."""
        paths = self.all()
        return _size(paths[-1]) if paths else 0

    # ---- which to keep -------------------------------------------------------------------------------------------

    def mark_passed(self, step: int) -> None:
        """The gates passed at this step: its checkpoint is the one to roll back to and is never pruned."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.folder / PASSED, json.dumps(sorted({*self._passed(), step})))

    def newest_passed(self) -> Checkpoint | None:
        """The newest valid checkpoint of a step whose gates passed."""
        for step in reversed(self._passed()):
            path = self.folder / f"step-{step:06d}"
            if path.is_dir() and self.verify(path) is None:
                return self._read(path)
        return None

    def _passed(self) -> list[int]:
        try:
            return json.loads((self.folder / PASSED).read_text())
        except (FileNotFoundError, ValueError):
            return []

    def prune(self) -> list[Path]:
        """Remove all but the newest ``keep`` checkpoints and the newest passed one; returns what was removed."""
        paths = self.all()
        steps = {int(path.name.removeprefix("step-")): path for path in paths}
        passed = [step for step in self._passed() if step in steps]
        kept = set(paths[-self.keep :]) | ({steps[passed[-1]]} if passed else set())
        removed = [path for path in paths if path not in kept]
        for path in removed:
            doomed = path.with_name(f".pruned-{path.name}")
            path.rename(doomed)  # at once: a half-removed folder must not look like a checkpoint
            shutil.rmtree(doomed, ignore_errors=True)
        for leftover in self.folder.glob(".pruned-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        return removed


def _files(folder: Path) -> Iterator[tuple[str, int, str]]:
    for root, _folders, names in os.walk(folder):
        for name in sorted(names):
            path = Path(root, name)
            yield str(path.relative_to(folder)), path.stat().st_size, _sha256(path)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
