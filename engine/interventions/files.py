"""The files that a lineage names, believed only if they are the ones it means; and stores that a kill leaves whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from recipes.errors import InputError, Problem


def verified(entry: Mapping[str, Any], run_folder: Path) -> Path:
    """The path of a lineage entry's file. Raises InputError if it is missing or not what the lineage says."""
    path = run_folder / entry["path"]
    accepted = f"the file that the lineage names (sha256 {entry['sha256'][:16]}…)"
    if not path.is_file():
        raise InputError([Problem(str(path), None, None, "no such file", accepted)])
    if hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
        raise InputError([Problem(str(path), None, None, "a file that has changed", accepted)])
    return path


def store(arrays: Mapping[str, np.ndarray], path: Path) -> None:
    """Written beside and renamed: a search that is killed here reads them off again."""
    draft = path.with_suffix(".draft")
    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, draft)
    draft.rename(path)
