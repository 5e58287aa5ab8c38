"""Completing a path while it is typed."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from recipes.resources import BUILT_IN, assets_folder

MOST = 200


@dataclass(frozen=True)
class Entry:
    """``word`` is what the input becomes; ``folder``: more can be typed behind it."""

    word: str
    folder: bool
    model: bool = False


def complete(typed: str, suffixes: Collection[str] | None) -> list[Entry]:
    """Folders and files that begin as typed, folders first; only files with one of ``suffixes``, none for None.

    ``lab/`` and ``builtin/`` are ours. Hidden entries are shown once a dot is typed.
    """
    for prefix, home in BUILT_IN.items():
        if typed.startswith(prefix):
            return _in(assets_folder() / home, prefix, typed.removeprefix(prefix), suffixes)
    before, slash, name = typed.rpartition("/")
    folder = Path(before + slash).expanduser() if slash else Path(".")
    found = _in(folder, before + slash, name, suffixes)
    if not slash and suffixes:
        found = [Entry(prefix, True) for prefix in BUILT_IN if prefix.startswith(typed)] + found
    return found


def _in(folder: Path, prefix: str, name: str, suffixes: Collection[str] | None) -> list[Entry]:
    folders, files = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.lower().startswith(name.lower()) or (
                    entry.name[0] == "." and not name.startswith(".")
                ):
                    continue
                if entry.is_dir():
                    is_model = suffixes is None and os.path.isfile(os.path.join(entry.path, "config.json"))
                    folders.append(Entry(f"{prefix}{entry.name}/", True, is_model))
                elif suffixes and os.path.splitext(entry.name)[1].lower() in suffixes:
                    files.append(Entry(prefix + entry.name, False))
    except OSError:
        return []
    return sorted(folders, key=lambda one: one.word)[:MOST] + sorted(files, key=lambda one: one.word)[:MOST]
