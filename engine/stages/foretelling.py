"""What a stage is expected to need, written into the log before it begins: the screen shows it beside what it took."""

from __future__ import annotations

from pathlib import Path

from engine.forecast.launch import expectation
from engine.report import duration
from engine.stages.context import StageContext
from recipes.load import LoadedRecipe

BASES = {
    "rates": "peak rates",
    "other models": "other models on this machine",
    "similar runs": "similar runs on this machine",
    "same stage": "the same stage on this machine",
}


def tell_forecast(context: StageContext) -> None:
    """Once a stage: later attempts are measured against what the first was promised."""
    if context.rank != 0:
        return
    told = context.run.state().alerts if context.run.events.is_file() else []
    if any(alert.code == "forecast" and alert.stage == context.index for alert in told):
        return
    loaded = LoadedRecipe(context.recipe, context.run.recipe, context.run.path, "")
    found = expectation(loaded, context.stage, context.index, Path(context.base_folder()))
    if found is None:
        return
    memory, time = found["memory"], found["time_s"]
    mib = "MiB" if context.recipe.processes == 1 else "MiB a process"
    text = (
        f"forecast: {memory['low_mib']:.0f} to {memory['high_mib']:.0f} {mib}, about {duration(time['value'])} "
        f"({duration(time['low'])} to {duration(time['high'])}, from {BASES[time['basis']]})"
    )
    context.alert("info", "forecast", text, **found)
