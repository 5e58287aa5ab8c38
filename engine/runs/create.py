"""Start a run's directory: everything is checked and prepared first, and it appears whole or not at all."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from engine.backends import resolve
from engine.data.hub import fetch_missing
from engine.data.prepare import Prepared, hash_sources, prepare, prepare_suite, source_words
from engine.hardware.device import device_name, physical_cores
from engine.models.lineage import Base, hash_files
from engine.runs.directory import RunDirectory, home, new_id, runs_folder
from engine.runs.events import AlertEvent, RunEvent
from engine.runs.log import EventLog
from engine.runs.queue import DeviceQueue
from recipes import generation
from recipes.errors import InputError, Problem
from recipes.load import LoadedRecipe, dump_recipe
from recipes.mlx import mlx_lacks
from recipes.resources import resolve_model
from recipes.schema import steps_of

PACKAGES = ("finetune-tui", "torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets")


@dataclass(frozen=True)
class Created:
    run: RunDirectory
    prepared: list[Prepared]


def create_run(loaded: LoadedRecipe, told: Callable[[int, int], None] | None = None) -> Created:
    """Check data and model, prepare the rows, and make the run's directory. Raises InputError; then nothing exists.

    Data sets of the hub that the recipe names are fetched first; ``told`` hears of the bytes there and in all.
    """
    _check_backend(loaded)
    model = _local_model(loaded)
    _refuse_missing_kernel(loaded)
    _refuse_missing_vllm(loaded)
    loaded, why = _settled(loaded)
    recipe = loaded.recipe
    _check_generation(loaded)
    fetch_missing([word for _, word in source_words(loaded)], loaded.folder, told, str(loaded.path or "recipe"))
    runs_folder().mkdir(parents=True, exist_ok=True, mode=0o700)
    name = new_id(recipe.name)
    draft = RunDirectory(runs_folder() / f".draft-{name}")
    draft.path.mkdir(mode=0o700)
    try:
        prepared = [
            prepare(loaded, index, draft.data_folder(index, stage.method)) for index, stage in enumerate(recipe.stages)
        ]
        prepare_suite(loaded, draft.suite)
        _write(draft, loaded, model, prepared, why)
        final = RunDirectory(runs_folder() / name)
        draft.path.rename(final.path)
    except BaseException:
        shutil.rmtree(draft.path, ignore_errors=True)
        raise
    return Created(final, prepared)


def changed_sources(run: RunDirectory) -> list[str]:
    """The sources whose content is no longer what the run started with (or is gone), by the recipe's words."""
    from recipes.load import load_recipe

    stored = json.loads(run.sources.read_text(encoding="utf-8"))
    loaded = load_recipe(str(run.recipe))
    loaded = LoadedRecipe(loaded.recipe, Path(stored["recipe"]), Path(stored["folder"]), loaded.text)
    try:
        now = hash_sources(loaded)
    except InputError as error:
        return [problem.found for problem in error.problems]
    return sorted(source for source, digest in stored["sha256"].items() if now.get(source) != digest)


def _check_backend(loaded: LoadedRecipe) -> None:
    """What ``backend: auto`` comes to on this machine may lack what the recipe asks for."""
    recipe, where = loaded.recipe, str(loaded.path or "recipe")
    problems = mlx_lacks(
        recipe.stages, resolve(recipe.backend), recipe.processes, where, {}, recipe.attention, recipe.fixed_order
    )
    if problems:
        raise InputError(problems)


def _local_model(loaded: LoadedRecipe) -> Base | None:
    """The base with its hashes if it is on this machine; None if it has to be fetched first."""
    model = loaded.recipe.model
    folder = resolve_model(model, loaded.folder)
    where = str(loaded.path or "recipe")
    if folder is None:
        if model.count("/") == 1 and not model.startswith((".", "~", "/")):
            return None
        accepted = "`lab`, `lab-nano`, a directory with a model, or a hub id such as `owner/name`"
        raise InputError([Problem(where, None, "model", f"`{model}`, which is no directory", accepted)])
    accepted = "a directory with config.json and *.safetensors (pickled weights are never loaded)"
    if not (folder / "config.json").is_file():
        raise InputError([Problem(where, None, "model", f"`{folder}` without config.json", accepted)])
    if not list(folder.glob("*.safetensors")):
        raise InputError([Problem(where, None, "model", f"`{folder}` without *.safetensors", accepted)])
    return Base(id=model, path=str(folder), revision=loaded.recipe.revision, files=hash_files(folder))


def _refuse_missing_kernel(loaded: LoadedRecipe) -> None:
    """FlashAttention by name, where it cannot be; ``auto`` takes it where it can."""
    if loaded.recipe.attention == "flash_attention_2":
        install, accepted = "flash-attn --no-build-isolation", "`attention: auto` or `sdpa`"
        _refuse_missing(loaded, "attention", "flash_attention_2", "flash_attn", install, accepted)


def _refuse_missing_vllm(loaded: LoadedRecipe) -> None:
    """vLLM by name, where it cannot be; ``auto`` takes it where it can."""
    for index, stage in enumerate(loaded.recipe.stages):
        if getattr(stage, "generation", "auto") == "vllm":
            field = f"stages.{index}.generation"
            _refuse_missing(loaded, field, "vllm", "vllm", "'trl[vllm]'", generation.ACCEPTED)


def _refuse_missing(loaded: LoadedRecipe, field: str, word: str, package: str, install: str, accepted: str) -> None:
    """Raises InputError where there is no CUDA device, or the package is not installed."""
    from engine.forecast.hardware import this_machine

    found = ""
    if this_machine().kind != "cuda":
        found = "which needs a CUDA device"
    elif importlib.util.find_spec(package) is None:
        found = f"which is not installed: `pip install {install}`"
    if found:
        raise InputError([Problem(str(loaded.path or "recipe"), None, field, f"`{word}`, {found}", accepted)])


def _check_generation(loaded: LoadedRecipe) -> None:
    """What ``quantization: auto`` came to on this machine may be what vLLM cannot take."""
    recipe, where = loaded.recipe, str(loaded.path or "recipe")
    backend = resolve(recipe.backend)
    problems = generation.generation_conflicts(recipe.stages, backend, recipe.quantization, where, {})
    if problems:
        raise InputError(problems)


def _settled(loaded: LoadedRecipe) -> tuple[LoadedRecipe, str]:
    """The recipe with ``quantization: auto`` decided for this machine, once and for every resume; and why."""
    from engine.forecast.auto import pick_quantization
    from engine.forecast.hardware import this_machine

    if loaded.recipe.quantization != "auto":
        return loaded, ""
    hardware = this_machine()
    if DeviceQueue(home(), device_name()).taken():  # by a run of ours, which will be over when this one begins
        hardware = hardware.when_free()
    picked = pick_quantization(loaded, hardware)
    return replace(loaded, recipe=loaded.recipe.model_copy(update={"quantization": picked.value})), picked.why


def _write(draft: RunDirectory, loaded: LoadedRecipe, model: Base | None, prepared: list[Prepared], why: str) -> None:
    recipe = loaded.recipe
    resolved = recipe.model_copy(update={"threads": recipe.threads or _threads()})
    versions = _versions()
    heading = f"# As resolved on {time.strftime('%Y-%m-%d %H:%M:%S')} with " + ", ".join(
        f"{name} {number}" for name, number in versions.items()
    )
    draft.recipe.write_text(f"{heading}\n{dump_recipe(resolved)}", encoding="utf-8")
    if model is not None:
        draft.model.write_text(json.dumps(asdict(model), indent=1))
    hashes = {"recipe": str(loaded.path or ""), "folder": str(loaded.folder), "sha256": hash_sources(loaded)}
    draft.sources.write_text(json.dumps(hashes, indent=1), encoding="utf-8")
    draft.logs.mkdir()
    draft.control.mkdir()
    log = EventLog(draft.events)
    stages = [
        {
            "method": stage.method,
            "steps": steps_of(stage),
            "gates": {name: [gate.min, gate.max] for name, gate in stage.gates.items() if gate is not None},
        }
        for stage in recipe.stages
    ]
    detail = {
        "name": recipe.name, "model": recipe.model, "stages": stages, "versions": versions, "on_gate_fail": recipe.on_gate_fail,
        "data": [asdict(one) for one in prepared], "machine": f"{platform.system()} {platform.machine()}",
    }  # fmt: skip
    log.append(RunEvent(state="created", detail=detail))
    if recipe.quantization != "none" and why:
        log.append(AlertEvent(level="info", code="quantization", text=f"quantization {why}"))
    for index, one in enumerate(prepared):
        for warning in one.warnings:
            log.append(AlertEvent(stage=index, level="warning", code="data", text=warning))
    log.close()


def _threads() -> int:
    """CPU threads that a stage of this run will use, now and after every resume."""
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() and int(wanted) > 0 else physical_cores()


def _versions() -> dict[str, str]:
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
