"""Phase 0 of a run: get the model. ``python -P -m engine.models.fetch RUN_DIR``, a child of the supervisor.

Only safetensors, and what a tokenizer needs; how files come from the hub is in ``hub_files``.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.models.hub_files import (
    Asked,
    NoRoom,
    RemoteFile,
    Repository,
    fetch_files,
    listing,
    matches,
    patiently,
    remote_file,
)
from engine.models.lineage import Base
from engine.runs.channel import Channel
from engine.runs.directory import RunDirectory
from engine.runs.events import AlertEvent
from engine.runs.exitcodes import BAD_INPUT, DISK_FULL, DONE, FAILED
from engine.runs.files import write_atomically
from recipes.errors import InputError, Problem

WANTED = ("*.safetensors", "*.json", "tokenizer.model", "*.jinja", "vocab.txt", "merges.txt")
UNWANTED = ("consolidated*", "original/*", "*/*")
"""Other copies of the weights; everything below a sub-folder."""


def main() -> int:
    run = RunDirectory(Path(sys.argv[1]))
    channel = Channel.from_stdin()
    from recipes.load import load_recipe

    recipe = load_recipe(str(run.recipe)).recipe
    try:
        base = fetch(recipe.model, recipe.revision, channel)
    except InputError as error:
        channel.emit(AlertEvent(level="error", code="model", text=str(error)))
        print(error)
        return BAD_INPUT
    except NoRoom as error:
        channel.emit(AlertEvent(level="error", code="interrupted", text=str(error)))
        return DISK_FULL
    except Asked as asked:
        return asked.code
    except Exception as error:
        channel.emit(AlertEvent(level="error", code="model", text=f"{type(error).__name__}: {error}"))
        print(f"{type(error).__name__}: {error}")
        return FAILED
    write_atomically(run.model, json.dumps(asdict(base), indent=1))
    channel.close()
    return DONE


def fetch(model: str, revision: str | None, channel: Channel) -> Base:
    """Download what is missing of ``model`` and verify all of it. Raises InputError, NoRoom or the last network error."""
    asked = Repository(model, revision)
    info = patiently(lambda: listing(asked), channel)
    got = fetch_files(asked, info.sha, wanted_files(info), channel)
    folder = next(path.parent for name, (path, _) in got.items() if name == "config.json")
    return Base(id=model, path=str(folder), revision=info.sha, files={name: sha for name, (_, sha) in got.items()})


def wanted_files(info: Any) -> list[RemoteFile]:
    """What is needed of a repository, smallest first. Raises InputError if it has no safetensors weights."""
    files = [
        remote_file(sibling)
        for sibling in info.siblings
        if matches(sibling.rfilename, WANTED) and not matches(sibling.rfilename, UNWANTED)
    ]
    names = [file.name for file in files]
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        others = ", ".join(sibling.rfilename for sibling in info.siblings[:8])
        accepted = "a model with config.json and *.safetensors (pickled weights run code when they load, and are not)"
        raise InputError([Problem("recipe", None, "model", f"`{info.id}` with {others}", accepted)])
    return sorted(files, key=lambda file: file.size)


def remote_files(model: str, revision: str | None = None) -> list[RemoteFile]:
    """What a run would download, after asking whether it may: a gated model shows its list to everybody."""
    return wanted_files(listing(Repository(model, revision), ask_access=True))


if __name__ == "__main__":
    sys.exit(main())


if __name__ == "__main__":
    sys.exit(main())
