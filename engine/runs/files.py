"""Files that are whole or absent: written beside, synced to the disk, renamed into place."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Replace ``path`` by ``text`` (UTF-8) in one step; a reader or a crash sees the old file or the new one."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    with open(draft, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        sync_file(file.fileno())
    os.replace(draft, path)
    sync_folder(path.parent)


def sync_file(descriptor: int) -> None:
    """Push a file through to the disk. On APFS a plain fsync stops at the drive's cache."""
    full_sync = getattr(fcntl, "F_FULLFSYNC", None)
    if sys.platform == "darwin" and full_sync is not None:
        fcntl.fcntl(descriptor, full_sync)
    else:
        os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Push a folder's entries (creations, renames) through to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Push every file and folder below ``folder`` through to the disk, and the folder itself."""
    for root, _folders, files in os.walk(folder):
        for name in files:
            descriptor = os.open(os.path.join(root, name), os.O_RDONLY)
            try:
                sync_file(descriptor)
            finally:
                os.close(descriptor)
        sync_folder(Path(root))
