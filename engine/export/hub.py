"""Upload a finished export to the Hugging Face hub: only when asked, private unless told otherwise."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from recipes.errors import InputError, Problem

TOKENS_PAGE = "https://huggingface.co/settings/tokens"


def ensure_allowed(repo: str) -> None:
    """Raises InputError without a repository's name or a token that the hub knows: before anything is written."""
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise InputError([Problem("--repo", None, None, f"`{repo}`", "a repository such as `your-name/your-model`")])
    _explained(repo, lambda api: api.whoami())


def upload(folder: Path, repo: str, private: bool = True) -> str:
    """The repository's page. Raises InputError with what the hub refused and the page that mends it."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

    def work(api: Any) -> str:
        page = api.create_repo(repo, private=private, exist_ok=True, repo_type="model")
        api.upload_folder(repo_id=repo, folder_path=str(folder), commit_message="Upload by finetune-tui")
        return str(page)

    return _explained(repo, work)


def _explained(repo: str, work: Any) -> Any:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    try:
        return work(HfApi())
    except LocalTokenNotFoundError as error:
        accepted = f"a token with write access: make one at {TOKENS_PAGE}, then `hf auth login`"
        raise InputError([Problem("hub", None, repo, "no token on this machine", accepted)]) from error
    except OfflineModeIsEnabled as error:
        raise InputError([Problem("hub", None, repo, "HF_HUB_OFFLINE", "the network: unset HF_HUB_OFFLINE")]) from error
    except HfHubHTTPError as error:
        code = int(getattr(error.response, "status_code", 0))
        owner = repo.split("/")[0]
        words = {
            401: ("a token that the hub does not know (401)", f"a valid one: make it at {TOKENS_PAGE}, then `hf auth login`"),
            403: (f"a token that may not write to `{owner}` (403)", f"one with write access to `{owner}`: {TOKENS_PAGE}"),
            404: ("a repository that is not there or not yours (404)", "one under your own name or organisation"),
        }  # fmt: skip
        found, accepted = words.get(code, (f"the hub's answer {code}: {error}", "try again later"))
        raise InputError([Problem("hub", None, repo, found, accepted)]) from error
    except OSError as error:
        found = f"no answer from the hub ({type(error).__name__})"
        raise InputError([Problem("hub", None, repo, found, "a connection; the export itself is kept")]) from error
