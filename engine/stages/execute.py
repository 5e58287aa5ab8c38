"""Run one stage of a run to its exit code: what a stage process does between its start and its end."""

from __future__ import annotations

import importlib
import traceback

from engine.runs.channel import Channel
from engine.runs.directory import RunDirectory
from engine.runs.events import AlertEvent, StageEvent
from engine.runs.exitcodes import BAD_INPUT, DONE, FAILED, GATE_FAILED, NO_MEMORY
from engine.stages.context import StageContext
from engine.stages.foretelling import tell_forecast
from engine.stages.interruption import Interrupted, behind
from engine.stages.memory import begin_with_what_fitted, fall_back, ran_out
from engine.stages.output import sealed_result
from recipes.errors import InputError
from recipes.load import load_recipe
from recipes.schema import steps_of


def run_stage(run: RunDirectory, index: int, channel: Channel, alone: bool = False) -> int:
    """Returns an exit code of engine/runs/exitcodes.py; whatever happens, the channel is told in words.

    ``alone``: this process runs nothing but the stage, so that what the stage does not need is not imported.
    """
    method, checkpoints, context = "?", None, None
    try:
        recipe = load_recipe(str(run.recipe)).recipe
        context = StageContext(run, recipe, index, channel)
        method, checkpoints = context.method, context.checkpoints
        if alone:
            optimizer = getattr(context.stage, "optimizer", "")
            context.backend.alone(context.load_settings(False), optimizer, context.base_folder())
        channel.emit(StageEvent(state="started", method=method, steps_total=steps_of(context.stage)))
        begin_with_what_fitted(context)
        result = sealed_result(context)
        if result is None:
            tell_forecast(context)
            module = importlib.import_module(f"engine.stages.{method}")
            module.run(context)
            if context.rank != 0:
                return DONE
            result = sealed_result(context)
            assert result is not None, "the stage ended without sealing its output"
        passed = bool(result["passed"])
        reason = "" if passed else f"gate failed: {', '.join(result['failed'])}"
        context.keep_work()
        steps = steps_of(context.stage)
        channel.emit(StageEvent(state="done", method=method, steps_total=steps, passed=passed, reason=reason))
        return DONE if passed else GATE_FAILED
    except Interrupted as interruption:
        channel.emit(AlertEvent(level="info", code="interrupted", text=interruption.reason, detail={}))
        return interruption.exit_code
    except InputError as error:
        channel.emit(StageEvent(state="failed", method=method, steps_total=0, reason=str(error)))
        return BAD_INPUT
    except Exception as error:
        full = behind(error, run.path, checkpoints.size_of_newest() if checkpoints else 0)
        if full is not None:
            channel.emit(AlertEvent(level="warning", code="interrupted", text=full.reason, detail={}))
            return full.exit_code
        traceback.print_exc()
        if context is not None and ran_out(error):
            return NO_MEMORY if fall_back(context) else FAILED
        text = f"{type(error).__name__}: {error}"
        channel.emit(AlertEvent(level="error", code="crash", text=text, detail={}))
        return FAILED
