"""Whether the files of a lineage are the ones that the run wrote down, by their sha256.

Hashing a large base takes a while: what was found is kept with each file's size and times, and a file is read again
only when those have changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from engine.models.lineage import Lineage
from engine.runs.files import write_atomically
from recipes.errors import InputError, Problem

KEPT = "verified.json"
"""In the run's directory: path -> ``[size, time of change in ns, sha256]``."""


def verify_lineages(
    lineages: Iterable[Lineage], run_folder: Path, tell: Callable[[str], None] = lambda _: None
) -> None:
    """Raises InputError naming the first file of a base or an adapter that is missing or another one.

    ``tell`` gets the name of each file that has to be read. Edits and vectors are checked where they are loaded
    (``engine.backends.pytorch.interventions``): they are small.
    """
    kept = _read(run_folder / KEPT)
    found: dict[str, Any] = {}
    for path, wanted, accepted in dict.fromkeys(one for lineage in lineages for one in _files(lineage, run_folder)):
        if not path.is_file():
            raise InputError([Problem(str(path), None, None, "no such file", accepted)])
        facts = os.stat(path)
        stamp = [facts.st_size, max(facts.st_mtime_ns, facts.st_ctime_ns)]
        before = kept.get(str(path))
        if isinstance(before, list) and before[:2] == stamp:
            digest = str(before[2])
        else:
            tell(path.name)
            with open(path, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[str(path)] = [*stamp, digest]
        if digest != wanted:
            words = f"another file (sha256 {digest[:16]}…)"
            raise InputError([Problem(str(path), None, None, words, f"{accepted} (sha256 {wanted[:16]}…)")])
    if any(kept.get(name) != stamp for name, stamp in found.items()):
        write_atomically(run_folder / KEPT, json.dumps(kept | found))


def _files(lineage: Lineage, run_folder: Path) -> list[tuple[Path, str, str]]:
    """``(path, sha256, what it should be)``."""
    base = Path(lineage.base.path)
    base = base if base.is_absolute() else run_folder / base
    says = f"the base `{lineage.base.id}` that the run started from"
    files = [(base / name, digest, says) for name, digest in lineage.base.files.items()]
    if lineage.adapter is not None:
        path = run_folder / lineage.adapter.path / "adapter_model.safetensors"
        files.append((path, lineage.adapter.sha256, f"the adapter that the run trained on `{lineage.base.id}`"))
    return files


def _read(path: Path) -> dict[str, Any]:
    """What is no such file of ours is as good as none: everything is read again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
