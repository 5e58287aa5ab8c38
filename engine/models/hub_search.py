"""Models in the hub cache, and on the hub: asked for only when the user asks, and never offline."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

MOST = 30


@dataclass(frozen=True)
class OnHub:
    """``gated``: its page must be visited and its terms accepted first."""

    id: str
    downloads: int
    gated: bool


def offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")


def cache_folder() -> Path:
    home = os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface")
    return Path(os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub"))


def cached_models() -> list[str]:
    """Ids of the models in the hub cache that have a config and weights."""
    folder = cache_folder()
    if not folder.is_dir():
        return []
    found = []
    for entry in sorted(folder.glob("models--*--*")):
        snapshots = [one for one in (entry / "snapshots").glob("*") if (one / "config.json").is_file()]
        if any(next(one.glob("*.safetensors"), None) for one in snapshots):
            found.append(entry.name.removeprefix("models--").replace("--", "/", 1))
    return found


def search(words: str) -> list[OnHub]:
    """Text-generation models with safetensors whose name has these words, most downloaded first. Raises OSError when
    the hub cannot be asked."""
    if offline():
        raise OSError("HF_HUB_OFFLINE is set")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    try:
        found = HfApi().list_models(
            search=words,
            filter=["safetensors", "text-generation"],
            sort="downloads",
            limit=MOST,
            expand=["downloads", "gated"],
        )
        return [OnHub(one.id, one.downloads or 0, bool(one.gated)) for one in found]
    except HfHubHTTPError as error:
        raise OSError(f"the hub says: {error}") from error


def fetch_config(model: str) -> None:
    """Put a model's config.json into the hub cache, so that it can be priced. Raises OSError with the reason."""
    if offline():
        raise OSError("HF_HUB_OFFLINE is set")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        hf_hub_download(model, "config.json")
    except GatedRepoError as error:
        said = f"{model} is gated: accept its terms on https://huggingface.co/{model}, then `hf auth login`"
        raise OSError(said) from error
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise OSError(f"the hub does not give {model}: {type(error).__name__}") from error
