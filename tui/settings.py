"""What a person has chosen for the app: a small file, read when the app opens, written when a choice changes.

Nothing in here needs Textual; without a file nothing is imported or parsed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

FILE = "settings.toml"
CHOICES: dict[str, tuple[str, ...]] = {
    "theme": ("dark", "light", "colour-blind", "ansi", "ansi-light"),
    "keys": ("shown", "hidden"),
    "notifications": ("auto", "terminal", "desktop", "bell", "off"),
}
"""Field -> its words; what else there is is a path or yes/no. A theme of Textual's own may be named too."""
HEADER = (
    "# The settings of finetune-tui's app; its Settings screen writes this file. Leave a line out for its default.\n"
)


@dataclass(frozen=True)
class Settings:
    theme: str = "dark"
    keys: str = "shown"
    """The line of keys at the bottom."""
    notifications: str = "auto"
    """How a run's end is told: what the terminal and the desktop offer, one of them, a bell, or nothing."""
    mouse: bool = True
    ascii: bool = False
    """Draw without Unicode."""
    runs: str = ""
    """Where runs are kept; empty: the user's data directory. FINETUNE_TUI_HOME goes before it."""
    models: str = ""
    """The hub's cache; empty: HF_HOME or the hub's own default."""


@dataclass(frozen=True)
class Loaded:
    settings: Settings
    problems: list[str]
    """What is wrong with the file, line by line in words; its good lines are in force all the same."""


def settings_path() -> Path:
    """``FINETUNE_TUI_HOME``, which keeps everything in one place, else the user's configuration directory."""
    named = os.environ.get("FINETUNE_TUI_CONFIG") or os.environ.get("FINETUNE_TUI_HOME")
    if named:
        return Path(named).expanduser() / FILE
    import platformdirs

    return Path(platformdirs.user_config_dir("finetune-tui", False)) / FILE


def load_settings() -> Loaded:
    """Never raises: what cannot be read or is wrong is named, and the default stands for it."""
    path = settings_path()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Loaded(Settings(), [])
    except (OSError, UnicodeDecodeError) as error:
        return Loaded(Settings(), [f"{path} cannot be read: {error}"])
    import tomllib

    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return Loaded(Settings(), [f"{path} is no TOML: {error}"])
    return _checked(raw, path)


def _checked(raw: dict[str, Any], path: Path) -> Loaded:
    from recipes.errors import Problem, nearest_word, quoted

    known = {field.name: field for field in fields(Settings)}
    good: dict[str, Any] = {}
    problems = []
    for name, value in raw.items():
        accepted = ""
        if name not in known:
            near = nearest_word(name, known)
            problems.append(str(Problem(str(path), None, name, f"an unknown setting `{name}`", quoted(known), near)))
            continue
        if name in CHOICES:
            if value not in CHOICES[name] and not (name == "theme" and isinstance(value, str) and _known_theme(value)):
                accepted = quoted(CHOICES[name])
        elif isinstance(known[name].default, bool):
            accepted = "" if isinstance(value, bool) else "`true` or `false`"
        elif not isinstance(value, str):
            accepted = "a path in quotes"
        if accepted:
            near = nearest_word(str(value), CHOICES.get(name, ()))
            problems.append(str(Problem(str(path), None, name, f"`{value}`", accepted, near)))
        else:
            good[name] = value
    return Loaded(replace(Settings(), **good), problems)


def _known_theme(name: str) -> bool:
    from tui.themes import known

    return known(name)


def save_settings(settings: Settings) -> None:
    """Write what differs from the defaults. A file that could not be read whole is kept beside it, as ``.bak``."""
    import json

    from engine.runs.files import write_atomically

    path = settings_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if path.is_file() and load_settings().problems:
        path.replace(path.with_suffix(".toml.bak"))
    lines = [
        # JSON's strings and booleans are TOML's
        f"{field.name} = {json.dumps(getattr(settings, field.name), ensure_ascii=False)}\n"
        for field in fields(Settings)
        if getattr(settings, field.name) != field.default
    ]
    write_atomically(path, HEADER + "".join(lines))


def apply_directories(settings: Settings) -> None:
    """For this process and those that it starts; what the environment says goes before it."""
    if settings.runs and not os.environ.get("FINETUNE_TUI_HOME"):
        os.environ.setdefault("FINETUNE_TUI_CONFIG", str(settings_path().parent))
        os.environ["FINETUNE_TUI_HOME"] = str(Path(settings.runs).expanduser())
    if settings.models and not os.environ.get("HF_HOME"):
        os.environ["HF_HOME"] = str(Path(settings.models).expanduser())
