"""What a stage has at hand: its run, its recipe, its data, the lineage it starts from, and the channel upwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.backends import open_backend, resolve
from engine.backends.interface import Backend, LoadSettings, Message
from engine.forecast.launch import outlook
from engine.forecast.rates import keep, record_of
from engine.models.lineage import Lineage, lineage_in
from engine.runs.channel import Channel
from engine.runs.checkpoints import CheckpointStore
from engine.runs.directory import RunDirectory
from engine.runs.events import AlertEvent, OutlookEvent, PhaseEvent
from engine.stages.interruption import Interrupted
from engine.stages.results import Results
from engine.stages.work import Work
from recipes.errors import InputError
from recipes.load import LoadedRecipe
from recipes.schema import Adapter, Checkpoint, Recipe, quantization_of
from recipes.schema import Stage as TrainingStage

MICRO_BATCH = "micro-batch.json"
"""In a stage's folder: the smaller micro-batch that it goes on with after it ran out of memory (engine/stages/memory)."""


class StageContext:
    """``index`` is 0-based. ``rank`` is 0 but for the helpers of a several-process stage, which only train."""

    def __init__(self, run: RunDirectory, recipe: Recipe, index: int, channel: Channel) -> None:
        self.run = run
        self.recipe = recipe
        self.index = index
        self.stage: Any = recipe.stages[index]
        self.channel = channel
        self.rank = int(os.environ.get("RANK", "0"))
        self.method: str = self.stage.method
        self.folder = run.stage_folder(index, self.method)
        self._take_smaller_micro_batch()
        self.work = Work()
        self.data = run.data_folder(index, self.method)
        self.output = self.folder / "output"
        self.lineage: Lineage = lineage_in(run, index)
        self.results = Results(self.folder / "evaluations")
        keep = getattr(self.stage, "checkpoint", Checkpoint()).keep
        self.checkpoints = CheckpointStore(self.folder / "checkpoints", keep=keep)
        self.backend: Backend = open_backend(resolve(self.stage.backend or recipe.backend))

    def _take_smaller_micro_batch(self) -> None:
        path = self.folder / MICRO_BATCH
        if path.is_file():
            self.stage = self.stage.model_copy(update=json.loads(path.read_text(encoding="utf-8")))

    @property
    def seed(self) -> int:
        """The stage's own training seed."""
        return derived_seed(self.recipe.seed, self.index, "train")

    def seed_for(self, step: int, purpose: str) -> int:
        """Seed of an evaluation: from (recipe seed, stage, step, purpose), never from training's generators."""
        return derived_seed(self.recipe.seed, self.index, f"{step}:{purpose}")

    def base_folder(self) -> Path:
        """Where the base's files lie."""
        folder = Path(self.lineage.base.path)
        return folder if folder.is_absolute() else self.run.path / folder

    def load_settings(self, needs_reference: bool) -> LoadSettings:
        stage = self.stage
        trains = isinstance(stage, TrainingStage)
        adapter = stage.adapter if trains else Adapter()
        return LoadSettings(
            quantization=quantization_of(self.recipe),
            dtype=self.recipe.dtype,
            training=stage.training if trains else "none",
            rank=adapter.rank,
            alpha=adapter.alpha,
            dropout=adapter.dropout,
            targets=adapter.targets,
            gradient_checkpointing=trains and stage.gradient_checkpointing,
            seed=self.seed,
            needs_reference=needs_reference,
            trust_remote_code=self.recipe.trust_remote_code,
            attention=self.recipe.attention,
            fixed_order=self.recipe.fixed_order,
        )

    def open_policy(self, needs_reference: bool) -> Any:
        """The policy of the lineage, loaded; what it is asked for is counted for later forecasts."""
        with self.work.load():
            policy = self.backend.load(self.lineage, self.run.path, self.load_settings(needs_reference))
        return self.work.watch(policy)

    def keep_work(self) -> None:
        """Remember how fast this machine was, for later forecasts. Never a reason for a stage to fail."""
        if self.work.loading and self.rank == 0:
            with contextlib.suppress(OSError, InputError):
                loaded = LoadedRecipe(self.recipe, self.run.recipe, self.run.path, "")
                keep(record_of(loaded, self.stage, self.index, self.base_folder(), self.work.to_json()))

    def tell_outlook(self) -> None:
        """What is left beside the steps, by this attempt's own pace. Never a reason for a stage to fail either."""
        if self.work.loading and self.rank == 0:
            with contextlib.suppress(OSError, InputError):
                loaded = LoadedRecipe(self.recipe, self.run.recipe, self.run.path, "")
                around = outlook(loaded, self.stage, self.index, self.base_folder(), self.work.to_json())
                if around is not None:
                    self.channel.emit(OutlookEvent(around=around))

    def phase(self, phase: str, detail: str = "", unit: str = "") -> Callable[[int, int], None]:
        """Announce a phase; the returned function reports progress in it and ends the stage if that was asked."""
        self.channel.emit(PhaseEvent(phase=phase, done=0, total=0, unit=unit, detail=detail))

        def progress(done: int, total: int) -> None:
            self.channel.emit(PhaseEvent(phase=phase, done=done, total=total, unit=unit, detail=detail))
            self.check_interruption()

        return progress

    def check_interruption(self) -> None:
        command = self.channel.pending()
        if command is not None:
            raise Interrupted.by(command)

    def alert(self, level: str, code: str, text: str, **detail: Any) -> None:
        self.channel.emit(AlertEvent(level=level, code=code, text=text, detail=detail))


def derived_seed(seed: int, stage: int, purpose: str) -> int:
    """A 31-bit seed that is the same on every machine and run."""
    digest = hashlib.sha256(f"{seed}/{stage}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def user_turn(text: str) -> list[Message]:
    """A conversation of one user message."""
    return [{"role": "user", "content": text}]


def relative_to_run(context: StageContext, path: Path) -> str:
    return str(path.relative_to(context.run.path))
