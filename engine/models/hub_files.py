"""Files of the hub, of a model's or a data set's repository: listed, fetched, verified.

huggingface_hub does the transfer (cache, resume by range, retries). On top: the disk looked at first, every file's hash
checked against what the hub lists, refusals explained, progress told, pause and stop obeyed.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from engine.runs.events import AlertEvent, PhaseEvent
from engine.runs.exitcodes import PAUSED, STOPPED
from recipes.errors import InputError, Problem

Kind = Literal["model", "dataset"]
PAUSES = (2, 5, 15, 30, 60, 120, 300)
"""Seconds between tries after a network failure that huggingface_hub's own retries did not cure."""
PROGRESS_EVERY = 0.5


class Line(Protocol):
    """Where progress and warnings go, and commands come from: a run's channel, or whoever else waits."""

    def emit(self, event: Any) -> object: ...

    def pending(self) -> dict[str, Any] | None: ...


@dataclass(frozen=True)
class Repository:
    """What is asked for; ``where`` and ``field`` say in errors who named it."""

    id: str
    revision: str | None = None
    kind: Kind = "model"
    where: str = "recipe"
    field: str = "model"

    @property
    def page(self) -> str:
        from huggingface_hub import HfApi

        return f"{HfApi().endpoint}/{'datasets/' if self.kind == 'dataset' else ''}{self.id}"

    def problem(self, found: str, accepted: str) -> InputError:
        return InputError([Problem(self.where, None, self.field, found, accepted)])


@dataclass(frozen=True)
class RemoteFile:
    """``sha256`` for large files, ``git_sha1`` (of git's blob form) for the small ones that git itself holds."""

    name: str
    size: int
    sha256: str | None
    git_sha1: str | None


class NoRoom(Exception):
    """The disk cannot hold the model."""


class Asked(Exception):
    """The user paused or stopped the run while it fetched; what has arrived is kept."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def fetch_files(
    asked: Repository, commit: str, files: list[RemoteFile], channel: Line, pauses: tuple[float, ...] = PAUSES
) -> dict[str, tuple[Path, str]]:
    """Download what is missing and verify all of it: name -> (path in the cache, sha256). Raises InputError, NoRoom,
    Asked or the last network error."""
    total = sum(file.size for file in files)
    where = _cache()
    needed = total - _already(where, files, asked.kind)
    free = shutil.disk_usage(where).free
    if needed > free:
        raise NoRoom(
            f"{asked.id} needs {needed / 2**30:.2f} GiB more under {where}, where {free / 2**30:.2f} GiB are free"
        )
    progress = Progress(channel, asked.id, total)
    got: dict[str, tuple[Path, str]] = {}
    for file in files:
        path = patiently(lambda file=file: _one(asked, commit, file, progress), channel, pauses)
        got[file.name] = _verified(asked, commit, file, path, progress, channel)
    progress.close()
    return got


def remote_file(sibling: Any) -> RemoteFile:
    """What the hub lists of one file."""
    lfs = sibling.lfs
    return RemoteFile(
        sibling.rfilename, int(sibling.size or 0), lfs.sha256 if lfs else None, None if lfs else sibling.blob_id
    )


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def listing(asked: Repository, ask_access: bool = False) -> Any:
    """The repository's files with sizes and hashes. Refusals become InputError with the page to visit."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    api = HfApi()
    model, revision, page = asked.id, asked.revision, asked.page
    token = "`hf auth login` (or HF_TOKEN in the environment) gives your token to the downloader; it is written nowhere"
    try:
        info: Any = api.repo_info(model, revision=revision, repo_type=asked.kind, files_metadata=True)
        if ask_access and info.gated:
            api.auth_check(model, repo_type=asked.kind)
        return info
    except GatedRepoError:
        found, accepted = f"`{model}`, which asks for its licence to be accepted", f"visit {page}, accept, then {token}"
    except RevisionNotFoundError:
        found, accepted = f"`{model}` without the revision `{revision}`", f"a branch, tag or commit listed on {page}"
    except RepositoryNotFoundError:
        found = f"`{model}`, which the hub does not know or does not show without a token"
        accepted = f"an id that exists; if {page} does, log in: {token}"
    except HfHubHTTPError as error:
        if error.response is None or error.response.status_code not in (401, 403):
            raise
        found = f"`{model}`, which the hub refuses ({error.response.status_code})"
        accepted = f"visit {page} and see what it asks for, then {token}"
    raise asked.problem(found, accepted)


def _one(asked: Repository, commit: str, file: RemoteFile, progress: Progress) -> Path:
    from huggingface_hub import hf_hub_download

    with progress.of(file):
        return Path(
            hf_hub_download(asked.id, file.name, revision=commit, repo_type=asked.kind, tqdm_class=progress.bar())
        )


def _verified(
    asked: Repository, commit: str, file: RemoteFile, path: Path, progress: Progress, channel: Line
) -> tuple[Path, str]:
    """Path and sha256 of a file that is what the hub lists. A file that is not is fetched once more, then refused."""
    for attempt in (1, 2):
        wrong = mismatch(file, path)
        if wrong is None:
            with open(path, "rb") as opened:
                return path, hashlib.file_digest(opened, "sha256").hexdigest()
        text = f"{file.name} of {asked.id} is damaged ({wrong})"
        path.resolve().unlink(missing_ok=True)  # the cache's blob behind the link
        path.unlink(missing_ok=True)
        if attempt == 1:
            channel.emit(AlertEvent(level="warning", code="hash", text=f"{text}; it is fetched again"))
            path = patiently(lambda: _one(asked, commit, file, progress), channel)
    accepted = "the file that the hub lists; the server sends another one, twice. Try later, or another mirror"
    raise asked.problem(text, accepted)


def mismatch(file: RemoteFile, path: Path) -> str | None:
    """What is wrong with a downloaded file against the hub's listing, or None."""
    if path.stat().st_size != file.size:
        return f"{path.stat().st_size} bytes instead of {file.size}"
    with open(path, "rb") as opened:
        if file.sha256:
            return None if hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256 else "another sha256"
        if file.git_sha1:
            digest = hashlib.sha1(b"blob %d\0" % file.size + opened.read(), usedforsecurity=False).hexdigest()
            return None if digest == file.git_sha1 else "another git hash"
    return None


def patiently(action: Any, channel: Line, pauses: tuple[float, ...] = PAUSES) -> Any:
    """Try again after network failures, longer and longer; give up with the last error."""
    import httpx2  # what huggingface_hub 2 speaks HTTP with

    for pause in (*_pauses(pauses), None):
        _obey(channel)
        try:
            return action()
        except (httpx2.TransportError, OSError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if pause is None or (status is not None and status < 500):
                raise
            text = f"the download was interrupted ({type(error).__name__}); trying again in {pause} s"
            channel.emit(AlertEvent(level="warning", code="network", text=text))
            for _ in range(int(pause * 10)):
                _obey(channel)
                time.sleep(0.1)
    raise AssertionError("the last try raises or returns")


def _pauses(usual: tuple[float, ...]) -> tuple[float, ...]:
    """FINETUNE_TUI_RETRY_SECONDS, a list of seconds, overrides the pauses (for impatient users and for tests)."""
    named = os.environ.get("FINETUNE_TUI_RETRY_SECONDS")
    return tuple(float(part) for part in named.split(",")) if named else usual


def _obey(channel: Line) -> None:
    command = channel.pending()
    if command is not None:
        raise Asked(STOPPED if command.get("command") == "stop" else PAUSED)


def _cache() -> Path:
    from huggingface_hub import constants

    path = Path(constants.HF_HUB_CACHE)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _already(cache: Path, files: list[RemoteFile], kind: Kind) -> int:
    """Bytes of the wanted files that the cache holds under their hash."""
    have = {path.name: path.stat().st_size for path in cache.glob(f"{kind}s--*/blobs/*") if path.is_file()}
    return sum(have.get(file.sha256 or file.git_sha1 or "", 0) for file in files)


class Progress:
    """Bytes received over all files, told at most twice a second."""

    def __init__(self, channel: Line, model: str, total: int) -> None:
        self._channel, self._model, self._total = channel, model, total
        self._done = 0
        self._in_file = 0
        self._told = 0.0
        self._lock = threading.Lock()
        self.tell(force=True)

    def of(self, file: RemoteFile) -> Any:
        progress = self

        class Whole:
            def __enter__(self) -> None:
                progress._in_file = 0

            def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
                if kind is None:
                    progress._done += file.size
                progress._in_file = 0
                progress.tell()

        return Whole()

    def bar(self) -> Any:
        """A tqdm look-alike for huggingface_hub that reports here and obeys pause and stop."""
        from huggingface_hub.utils import tqdm

        progress = self

        class Bar(tqdm):  # type: ignore[misc]
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                kwargs["disable"] = True
                kwargs.pop("name", None)
                super().__init__(*args, **kwargs)
                progress._in_file = int(kwargs.get("initial") or 0)

            def update(self, n: float | None = 1) -> None:
                progress._in_file += int(n or 0)
                progress.tell()
                _obey(progress._channel)

        return Bar

    def tell(self, force: bool = False) -> None:
        with self._lock:
            if not force and time.monotonic() - self._told < PROGRESS_EVERY:
                return
            self._told = time.monotonic()
        done = min(self._total, self._done + self._in_file)
        event = PhaseEvent(phase="fetching", done=done, total=self._total, unit="bytes", detail=self._model)
        self._channel.emit(event)

    def close(self) -> None:
        self.tell(force=True)
