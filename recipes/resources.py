"""Where a recipe's words point to: assets that ship with the product, files beside the recipe, models."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from recipes.errors import InputError, Problem, nearest_word

LAB_MODELS = {"lab": "model", "lab-nano": "nano"}
BUILT_IN = {"lab/": "lab/data", "builtin/": "general"}
HUB = "hf:"
"""Before the id of a data set on the hub, where a path of the same name exists."""
HUB_DATASET = re.compile(
    r"(?:hf:)?(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[^:@\s]+))?(?::(?P<files>[^:\s]+))?"
)
DATA_ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".ndjson", ".pq", ".tab", ".yaml", ".yml", ".py")


@dataclass(frozen=True)
class HubDataset:
    """A data set on the hub: ``owner/name``, ``owner/name@REVISION``, ``owner/name:FILES`` with * in it or not."""

    word: str
    repo: str
    revision: str | None = None
    files: str | None = None

    @property
    def folder(self) -> Path:
        """Where its files are once they have been fetched; ``engine.data.hub`` puts them there."""
        part = "@".join((self.revision or "main", self.files or "all"))
        return home() / "datasets" / self.repo.replace("/", "--") / re.sub(r"[^\w.@-]", "_", part)


def home() -> Path:
    """Where everything of ours is kept: ``FINETUNE_TUI_HOME``, else the user's data directory."""
    named = os.environ.get("FINETUNE_TUI_HOME")
    if named:
        return Path(named).expanduser().resolve()
    import platformdirs

    return Path(platformdirs.user_data_dir("finetune-tui", False))


def hub_dataset(source: str, folder: Path) -> HubDataset | None:
    """The data set that the word names, if it can only be one on the hub: nothing of that name is in ``folder``."""
    match = HUB_DATASET.fullmatch(source.strip())
    if match is None or source.startswith(tuple(BUILT_IN)):
        return None
    if not source.startswith(HUB):
        word, path = match["repo"], folder / source
        if path.exists() or (folder / word).exists() or (folder / word.split("/")[0]).is_dir():
            return None
        if not match["files"] and word.lower().endswith(DATA_ENDINGS):
            return None
    return HubDataset(source.strip(), match["repo"], match["revision"], match["files"])


def assets_folder() -> Path:
    """The ``assets`` package beside this one, in a checkout as in an installed wheel."""
    return Path(__file__).resolve().parent.parent / "assets"


def resolve_source(source: str, folder: Path, where: str = "recipe", field: str | None = None) -> Path:
    """The file or directory that a recipe names.

    ``lab/…`` and ``builtin/…`` are ours; anything else is relative to the recipe's ``folder``, absolute, or under
    the home directory (``~``), or a data set of the hub that was fetched. A relative path must stay inside the
    recipe's folder: a recipe that somebody sent may not reach elsewhere without saying so in full. Raises InputError.
    """
    for prefix, home in BUILT_IN.items():
        if source.startswith(prefix):
            root = assets_folder() / home
            return _existing(root / source.removeprefix(prefix), root, source, where, field, prefix)
    on_hub = hub_dataset(source, folder)
    if on_hub is not None:
        return _fetched(on_hub, where, field)
    path = Path(source).expanduser()
    if path.is_absolute():
        return _existing(path, path.parent, source, where, field, "")
    root = folder.resolve()
    resolved = (root / path).resolve()
    if not resolved.is_relative_to(root):
        raise InputError([
            Problem(
                where, None, field, f"`{source}`, which leads out of the recipe's folder {root}",
                "a path inside that folder, or an absolute path if you mean a file elsewhere",
            )
        ])  # fmt: skip
    return _existing(resolved, resolved.parent, source, where, field, "")


def _fetched(on_hub: HubDataset, where: str, field: str | None) -> Path:
    folder = on_hub.folder
    if folder.is_dir() and all(file.exists() for file in folder.rglob("*")):  # links into a cache that may be emptied
        return folder
    found = f"`{on_hub.word}`, which is neither a path here nor a data set of the hub that was fetched"
    accepted = (
        f"an existing path, or a data set that `finetune-tui data {on_hub.word}` (or a run) can fetch from the hub"
    )
    raise InputError([Problem(where, None, field, found, accepted)])


def _existing(path: Path, folder: Path, source: str, where: str, field: str | None, prefix: str) -> Path:
    if path.exists():
        return path
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    near = nearest_word(path.name, names)
    raise InputError([
        Problem(
            where, None, field, f"`{source}`, which does not exist",
            "an existing file or directory (relative to the recipe, or absolute), `lab/…`, `builtin/…`, or `owner/name` on the hub",
            prefix + near if near else None,
        )
    ])  # fmt: skip


def resolve_model(model: str, folder: Path) -> Path | None:
    """The local directory of a model, or None if the word can only be a hub id."""
    if model in LAB_MODELS:
        return assets_folder() / "lab" / LAB_MODELS[model]
    path = Path(model).expanduser()
    path = path if path.is_absolute() else folder / path
    return path.resolve() if path.is_dir() else None


def is_lab(model: str) -> bool:
    return model in LAB_MODELS
