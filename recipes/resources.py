"""Where a recipe's words point to: assets that ship with the product, files beside the recipe, models."""

from __future__ import annotations

from pathlib import Path

from recipes.errors import InputError, Problem, nearest_word

LAB_MODELS = {"lab": "model", "lab-nano": "nano"}
BUILT_IN = {"lab/": "lab/data", "builtin/": "general"}


def assets_folder() -> Path:
    """The ``assets`` package beside this one, in a checkout as in an installed wheel."""
    return Path(__file__).resolve().parent.parent / "assets"


def resolve_source(source: str, folder: Path, where: str = "recipe", field: str | None = None) -> Path:
    """The file or directory that a recipe names.

    ``lab/…`` and ``builtin/…`` are ours; anything else is relative to the recipe's ``folder``, absolute, or under
    the home directory (``~``). A relative path must stay inside the recipe's folder: a recipe that somebody sent may
    not reach elsewhere without saying so in full. Raises InputError.
    """
    for prefix, home in BUILT_IN.items():
        if source.startswith(prefix):
            root = assets_folder() / home
            return _existing(root / source.removeprefix(prefix), root, source, where, field, prefix)
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


def _existing(path: Path, folder: Path, source: str, where: str, field: str | None, prefix: str) -> Path:
    if path.exists():
        return path
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    near = nearest_word(path.name, names)
    raise InputError([
        Problem(
            where, None, field, f"`{source}`, which does not exist",
            "an existing file or directory (relative to the recipe, or absolute), `lab/…` or `builtin/…`",
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
