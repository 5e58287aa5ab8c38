"""A run from its first stage to its last in this process: no supervisor, and no seconds that each stage's process takes to
import the training libraries."""

from __future__ import annotations

from pathlib import Path

from engine.runs.channel import Channel
from engine.runs.create import create_run
from engine.runs.directory import RunDirectory
from engine.runs.events import RunEvent
from engine.runs.exitcodes import DONE, GATE_FAILED
from engine.runs.log import EventLog
from engine.stages.execute import run_stage
from recipes.load import load_recipe


def run_here(recipe: Path) -> RunDirectory:
    """The finished run of a recipe whose gates only warn, in FINETUNE_TUI_HOME."""
    loaded = load_recipe(str(recipe))
    run = create_run(loaded).run
    log, codes = EventLog(run.events), []
    for index in range(len(loaded.recipe.stages)):

        def emit(event, index=index):
            event.stage = index
            log.append(event)

        codes.append(run_stage(run, index, Channel(None, emit)))
        assert codes[-1] in (DONE, GATE_FAILED), (index, codes, run.state().alerts)
    log.append(RunEvent(state="done", code=max(codes)))
    log.close()
    return run
