"""Whether a model can be had from the hub with the token that is here. The token itself is never read."""

from __future__ import annotations

import os
from pathlib import Path

from engine.hardware.doctor import Finding, gated_offline
from recipes.resources import resolve_model


def has_token() -> bool:
    """A token in the environment or in the file that ``hf auth login`` writes."""
    if os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN"):
        return True
    base = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "huggingface")
    file = Path(os.environ.get("HF_TOKEN_PATH") or base / "token").expanduser()
    return file.is_file() and file.stat().st_size > 0


def examine_model(model: str) -> Finding:
    """What stands between this machine and ``model``. Asks the hub unless HF_HUB_OFFLINE says not to."""
    if resolve_model(model, Path.cwd()) is not None:
        return Finding("note", "model", f"`{model}` is on this machine")
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        unknown = Finding("note", "model", f"`{model}` was not asked for: HF_HUB_OFFLINE is set")
        return gated_offline(model, has_token()) or unknown
    from engine.models.fetch import remote_files
    from recipes.errors import InputError

    try:
        files = remote_files(model)
    except InputError as error:
        problem = error.problems[0]
        return Finding("mend", "model", f"the hub refuses: {problem.found}", problem.accepted)
    except Exception as error:  # no network, a proxy, a broken certificate: the families are what is left
        unknown = Finding("advice", "model", f"the hub cannot be asked for `{model}`: {type(error).__name__}: {error}")
        return gated_offline(model, has_token()) or unknown
    size = sum(file.size for file in files)
    return Finding("note", "model", f"`{model}` can be had: {size / 2**30:.1f} GiB to download")
