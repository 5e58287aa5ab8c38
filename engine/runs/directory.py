"""Where a run lives: its directory, the names inside it, and finding it again."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

from engine.runs.lock import held
from engine.runs.log import read_events
from engine.runs.state import RunState
from recipes.errors import InputError, Problem, nearest_word
from recipes.resources import home


def runs_folder() -> Path:
    return home() / "runs"


class RunDirectory:
    """The paths of one run. Nothing is created by naming it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.yaml"
        self.model = path / "model.json"
        self.sources = path / "sources.json"
        self.events = path / "events.jsonl"
        self.lock = path / "lock"
        self.control = path / "control"
        self.logs = path / "logs"
        self.data = path / "data"
        self.suite = path / "data" / "suite.jsonl"
        self.report = path / "report.md"
        self.exports = path / "exports"

    @property
    def id(self) -> str:
        return self.path.name

    def stage_folder(self, index: int, method: str) -> Path:
        return self.path / "stages" / f"{index + 1:02d}-{method}"

    def data_folder(self, index: int, method: str) -> Path:
        return self.data / f"{index + 1:02d}-{method}"

    def output_folder(self, index: int) -> Path:
        """The sealed output of a stage, whatever its method; need not exist yet."""
        found = sorted((self.path / "stages").glob(f"{index + 1:02d}-*"))
        return (found[0] if found else self.path / "stages" / f"{index + 1:02d}-none") / "output"

    def log_of(self, index: int, method: str) -> Path:
        return self.logs / f"{index + 1:02d}-{method}.log"

    def state(self) -> RunState:
        return RunState().apply_all(read_events(self.events))


def new_id(name: str) -> str:
    return f"{name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def status(run: RunDirectory, state: RunState) -> str:
    """The state of the log, corrected by whether anybody works on the run: a dead run is never shown alive."""
    if state.status in ("created", "queued", "running") and not held(run.lock):
        return "interrupted"
    return state.status


def list_runs() -> list[RunDirectory]:
    """All runs, oldest first."""
    if not runs_folder().is_dir():
        return []
    found = [RunDirectory(path) for path in runs_folder().iterdir() if (path / "events.jsonl").is_file()]
    return sorted(
        found, key=lambda run: run.events.stat().st_ctime if not run.recipe.exists() else run.recipe.stat().st_mtime
    )


def find_run(word: str | None) -> RunDirectory:
    """A run by its id or an unambiguous beginning of it; the newest for None. Raises InputError."""
    runs = list_runs()
    if not runs:
        accepted = "a run; there is none yet: `finetune-tui demo` starts one"
        raise InputError([Problem("RUN", None, None, f"`{word or ''}`", accepted)])
    if word is None:
        return runs[-1]
    exact = [run for run in runs if run.id == word]
    if exact:
        return exact[0]
    begins = [run for run in runs if run.id.startswith(word)]
    if len(begins) == 1:
        return begins[0]
    ids = [run.id for run in runs]
    if begins:
        accepted = "more letters: it begins " + ", ".join(run.id for run in begins[-5:])
        raise InputError([Problem("RUN", None, None, f"`{word}`", accepted)])
    shown = ", ".join(ids[-5:])
    raise InputError([Problem("RUN", None, None, f"`{word}`", f"a run such as {shown}", nearest_word(word, ids))])
