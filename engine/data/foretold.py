"""What a run would say of a recipe's data before it begins, told without one."""

from __future__ import annotations

import tempfile
from pathlib import Path

from engine.data.prepare import prepare, source_paths
from recipes.errors import InputError
from recipes.load import LoadedRecipe

MOST_MIB = 256
"""Data that are looked over here; more would keep a person waiting who asks for a forecast."""


def foretold(loaded: LoadedRecipe) -> list[str]:
    """Warnings and faults of every stage's data, each with its stage, in order; empty when there is nothing to say.

    Its verifiers are tried as well, a user's own in the sandbox. Raises InputError when a source is not there.
    """
    size = sum(_size(path) for path in source_paths(loaded).values())
    if size > MOST_MIB << 20:
        return [f"the data ({size >> 20} MiB) are not looked over here: `finetune-tui data FILE` does, and every run"]
    found: list[str] = []
    for index in range(len(loaded.recipe.stages)):
        with tempfile.TemporaryDirectory(prefix="finetune-tui-") as folder:
            try:
                said = prepare(loaded, index, Path(folder)).warnings
            except InputError as error:
                said = [str(problem) for problem in error.problems]
        found += [f"stage {index + 1} data: {one}" for one in said]
    return found


def _size(path: Path) -> int:
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)
