"""What earlier stages measured of this machine: one line each in ``rates.jsonl`` beside the runs.

A line says what a stage ran (model, settings) and what its process did: how many tokens it generated, scored and
trained on, and the seconds of each. ``engine.forecast.cost`` turns that into how much faster or slower the machine is
than its peak rates would say, so that a stage that never ran here is priced by those that did. Nothing leaves it.
"""

from __future__ import annotations

import json
import os
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from engine.runs.directory import home
from recipes.load import LoadedRecipe
from recipes.schema import quantization_of

VERSION = 1
RATES = "rates.jsonl"
KEPT = 60
"""Newest lines that count."""
GENERATED_AT_ONCE = 64
"""Prompts in a batch of an evaluation, on either backend (``engine.backends.pytorch.policy.GENERATION_BATCH``)."""

Record = dict[str, Any]


@cache
def machine_key() -> str:
    """The kind of machine: two of the same kind are equally fast, and a host's name may change any day."""
    from engine.hardware.probe import probe_machine

    machine = probe_machine(software=False)
    return f"{machine.cpu.name}, {machine.cpu.cores} cores"


def record_of(loaded: LoadedRecipe, stage: Any, index: int, base: Path, measured: dict[str, Any]) -> Record:
    """A line: what the stage is (of the model its shape alone) and what was ``measured``."""
    from engine.forecast.cost import known_of, padded_step
    from engine.forecast.duration import stage_signature
    from engine.forecast.hardware import this_machine
    from engine.forecast.model import from_folder
    from engine.forecast.of_stages import computes_in
    from engine.forecast.settings import from_stage
    from engine.forecast.workload import workload

    recipe, hardware = loaded.recipe, this_machine()
    model = from_folder(base, recipe.model)
    quantization = quantization_of(recipe)
    dtype = computes_in(recipe.dtype, hardware)
    settings = from_stage(recipe, stage, inherited_adapter=index > 0, dtype=dtype, quantization=quantization)
    record = {
        "v": VERSION,
        "machine": machine_key(),
        "device": hardware.name,
        "backend": "pytorch" if recipe.backend == "auto" else recipe.backend,
        "threads": recipe.threads,
        "method": settings.method,
        "signature": stage_signature(recipe, index),
        "model": model.config,
        "name": recipe.model,
        "settings": settings.to_json(),
        **measured,
    }
    if settings.trains:
        record["padded"] = padded_step(workload(loaded, index), settings, known_of([record], model))
    return record


def keep(record: Record) -> None:
    """Add a line to what is known of the machine."""
    folder = home()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(folder / RATES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, json.dumps(record).encode() + b"\n")  # one write: lines of two runs do not mix
    finally:
        os.close(descriptor)


def measured_here(device: str, backend: str) -> list[Record]:
    """The newest lines about this machine's device and backend, oldest first."""
    path = home() / RATES
    try:
        stat = path.stat()
    except OSError:
        return []
    lines = _read(str(path), stat.st_mtime_ns, stat.st_size)
    key = machine_key()
    fitting = [
        line for line in lines if line["machine"] == key and line["device"] == device and line["backend"] == backend
    ]
    return fitting[-KEPT:]


@lru_cache(maxsize=4)
def _read(path: str, _changed: int, _size: int) -> tuple[Record, ...]:
    found = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # torn by a crash: the next run measures anew
        if isinstance(record, dict) and record.get("v") == VERSION:
            found.append(record)
    return tuple(found)
