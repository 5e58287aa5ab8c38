"""Data sets of the hub: which of their files are the rows, fetched into the hub's cache and linked where a recipe's word
points to (``HubDataset.folder``).

``owner/name`` takes the files of the training split, and refuses to choose between several configurations;
``owner/name:data/test-*`` names files, and ``owner/name@REVISION`` a branch, tag or commit.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from engine.data.rows import ALSO, SUFFIXES
from engine.models.hub_files import NoRoom, RemoteFile, Repository, fetch_files, listing, patiently, remote_file
from engine.models.hub_search import offline
from engine.runs.events import PhaseEvent
from recipes.errors import InputError, Problem, nearest_word
from recipes.resources import HubDataset, hub_dataset

ABOUT = ("dataset_infos.json", "dataset_dict.json", "state.json", "dataset_info.json", "*croissant*.json", ".*")
"""Files with an ending of data that say something about the data."""
TRAIN = re.compile(r"(^|[/_.-])train(ing)?([/_.-]|$)", re.IGNORECASE)
SHARD = re.compile(r"([-_.]?\d+)?([-_]of[-_]\d+)?(?=\.\w+$)")
FETCHED = ".fetched.json"
"""In a data set's folder: repository, commit, and the files' hashes."""
PAUSES = (1.0, 3.0, 8.0)
"""Seconds between tries: somebody waits."""
SHOWN = 8

Told = Callable[[int, int], None]
"""Bytes there, bytes in all."""


def fetch_missing(
    words: Iterable[str | None], folder: Path, told: Told | None = None, where: str = "recipe"
) -> list[Path]:
    """Fetch every data set of the hub among ``words`` that is not on this machine yet. Raises InputError."""
    fetched = []
    for word in dict.fromkeys(word for word in words if word):
        on_hub = hub_dataset(word, folder)
        if on_hub is not None and not there(on_hub):
            fetched.append(fetch_dataset(on_hub, told, where))
    return fetched


def there(on_hub: HubDataset) -> bool:
    """Whether it was fetched, and the cache that it was linked to still has its files."""
    folder = on_hub.folder
    return (folder / FETCHED).is_file() and all(file.exists() for file in folder.rglob("*"))


def fetch_dataset(on_hub: HubDataset, told: Told | None = None, where: str = "recipe") -> Path:
    """Fetch it (what has arrived before is kept, every file is verified) and return the folder with its files. Raises
    InputError for all that keeps it away: no network, no such data set, a licence, no room, no rows in it."""
    asked = Repository(on_hub.repo, on_hub.revision, "dataset", where, "data")
    if offline():
        raise asked.problem(
            f"`{on_hub.word}`, a data set of the hub that is not on this machine, and HF_HUB_OFFLINE is set",
            "a file or directory on this machine, or the network for once (unset HF_HUB_OFFLINE)",
        )
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    line = _Line(told)
    try:
        info = patiently(lambda: listing(asked), line, PAUSES)
        files = data_files_of(on_hub, [remote_file(sibling) for sibling in info.siblings], asked)
        got = fetch_files(asked, info.sha, files, line, PAUSES)
    except NoRoom as error:
        raise asked.problem(f"too little room: {error}", "more room, or HF_HUB_CACHE on another disk") from error
    except OSError as error:  # huggingface_hub's and httpx's errors among them: the last try's
        raise _unreachable(asked, on_hub, error) from error
    except Exception as error:
        if type(error).__module__.split(".")[0] not in ("httpx", "httpx2", "httpcore", "huggingface_hub"):
            raise
        raise _unreachable(asked, on_hub, error) from error
    return _link(on_hub, info.sha, got)


def _unreachable(asked: Repository, on_hub: HubDataset, error: Exception) -> InputError:
    said = " ".join(str(error).split())[:200]
    return asked.problem(
        f"`{on_hub.word}`, which the hub could not give: {type(error).__name__}: {said}",
        "the network; what has arrived is kept, and the next try goes on from there",
    )


def data_files_of(on_hub: HubDataset, files: list[RemoteFile], asked: Repository) -> list[RemoteFile]:
    """The files that hold the rows that are meant. Raises InputError where none does, or it is not clear which."""
    rows = [file for file in files if _suffix(file.name) in SUFFIXES and not _about(file.name)]
    rows = [file for file in rows if _suffix(file.name) != ".txt"] or rows
    if not rows:
        others = ", ".join(file.name for file in files[:SHOWN]) or "no files"
        raise asked.problem(
            f"`{on_hub.repo}` with {others}", f"files with rows ({', '.join(SUFFIXES)}); {asked.page} shows what it has"
        )
    ways = _ways(rows)
    if on_hub.files:
        chosen = [file for file in rows if fnmatch.fnmatch(file.name, on_hub.files) or _under(file.name, on_hub.files)]
        if not chosen:
            near = nearest_word(on_hub.files, [*ways, *(file.name for file in rows)])
            accepted = f"files of it: {_listed(on_hub, ways)}"
            raise InputError([
                Problem(asked.where, None, asked.field, f"`{on_hub.word}`, which no file of it is called", accepted,
                        f"{on_hub.repo}:{near}" if near else None)
            ])  # fmt: skip
        return chosen
    train = [file for file in rows if TRAIN.search(file.name)]
    ways = _ways(train or rows)
    if len(ways) > 1:
        raise asked.problem(
            f"`{on_hub.word}`, which has {len(ways)} sets of rows", f"a word on which is meant: {_listed(on_hub, ways)}"
        )
    return train or rows


def _ways(files: list[RemoteFile]) -> dict[str, list[str]]:
    """Files that belong together, shards of one split, under the pattern that names them."""
    found: dict[str, list[str]] = {}
    for file in files:
        stem, _, ending = SHARD.sub("", file.name, count=1).rpartition(".")
        found.setdefault(f"{stem}*.{ending}", []).append(file.name)
    return {names[0] if len(names) == 1 else pattern: names for pattern, names in found.items()}


def _listed(on_hub: HubDataset, ways: Iterable[str]) -> str:
    names = list(ways)
    revision = f"@{on_hub.revision}" if on_hub.revision else ""
    shown = ", ".join(f"`{on_hub.repo}{revision}:{name}`" for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _suffix(name: str) -> str:
    ending = Path(name).suffix.lower()
    return ALSO.get(ending, ending)


def _about(name: str) -> bool:
    return any(fnmatch.fnmatch(Path(name).name, pattern) for pattern in ABOUT)


def _under(name: str, folder: str) -> bool:
    return name.startswith(folder.rstrip("/") + "/")


def _link(on_hub: HubDataset, commit: str, got: dict[str, tuple[Path, str]]) -> Path:
    """Its folder, which appears whole or not at all."""
    folder = on_hub.folder
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    for name, (path, _) in got.items():
        link = draft / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path.resolve())
    hashes = {name: sha for name, (_, sha) in got.items()}
    (draft / FETCHED).write_text(json.dumps({"id": on_hub.repo, "commit": commit, "sha256": hashes}, indent=1))
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
    return folder


class _Line:
    """Progress for whoever waits; nobody pauses it."""

    def __init__(self, told: Told | None) -> None:
        self._told = told

    def emit(self, event: Any) -> None:
        if self._told and isinstance(event, PhaseEvent):  # of tries that failed the last one's error is raised
            self._told(int(event.done or 0), int(event.total or 0))

    def pending(self) -> dict[str, Any] | None:
        return None
