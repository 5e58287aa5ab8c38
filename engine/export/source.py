"""What is exported: a run's lineage after one of its stages, every file of it found, whole and the one it should be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.export.tensors import TensorFacts, read_folder, read_header
from engine.models.lineage import Lineage, read_lineage
from engine.runs.directory import RunDirectory
from engine.runs.state import RunState
from recipes.errors import InputError, Problem

CHUNK = 2**24
Progress = Callable[[str, float, float], None]
"""``(what is being done, bytes or steps done, of how many)``."""


@dataclass(frozen=True)
class Source:
    """A lineage with its files. ``stage`` is the index of the stage that handed it on."""

    run: RunDirectory
    state: RunState
    stage: int
    lineage: Lineage
    base: Path
    adapter: Path | None
    config: dict[str, Any]
    """The base's config.json."""
    tensors: dict[str, TensorFacts]
    """The base's."""

    @property
    def text_config(self) -> dict[str, Any]:
        return self.config.get("text_config") or self.config

    @property
    def acting_vectors(self) -> list[dict[str, Any]]:
        return [vector for vector in self.lineage.vectors if vector["strength"]]

    @property
    def method(self) -> str:
        return self.state.stages[self.stage].method


def find_source(run: RunDirectory, number: int | None = None) -> Source:
    """The lineage after stage ``number`` (from 1; the last finished one for None). Reads headers only.

    Raises InputError when the stage has not finished, or a file is missing, broken or of another model.
    """
    state = run.state()
    done = [index for index in range(len(state.stages)) if (run.output_folder(index) / "lineage.json").is_file()]
    if not done:
        accepted = f"a run with a finished stage; `finetune-tui attach {run.id}` shows how it stands"
        raise InputError([Problem(run.id, None, None, "a run that has finished no stage yet", accepted)])
    index = done[-1] if number is None else number - 1
    if index not in done:
        words = ", ".join(f"{one + 1} ({state.stages[one].method})" for one in done)
        raise InputError([Problem(run.id, None, "--stage", f"`{number}`", f"a finished stage: {words}")])
    lineage = read_lineage(run.output_folder(index) / "lineage.json")
    base = _inside(run, lineage.base.path)
    adapter = None if lineage.adapter is None else run.path / lineage.adapter.path
    if not (base / "config.json").is_file():
        accepted = f"the base `{lineage.base.id}` where the run found it; fetch it again or put it back"
        raise InputError([Problem(str(base), None, None, "no model there any more", accepted)])
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    source = Source(run, state, index, lineage, base, adapter, config, read_folder(base))
    _refuse_quantized(source)
    _check_adapter(source)
    for vector in lineage.vectors:
        _check_vector(source, vector)
    for edit in lineage.edits:
        read_header(run.path / edit["path"])
    return source


def _inside(run: RunDirectory, path: str) -> Path:
    return Path(path) if Path(path).is_absolute() else run.path / path


def _refuse_quantized(source: Source) -> None:
    if "quantization_config" in source.config:
        kind = source.config["quantization_config"].get("quant_method", "quantized")
        accepted = "a base in 16 bit: merging into quantized weights rounds the tune away; run on the 16-bit base"
        raise InputError([Problem(str(source.base), None, None, f"a base stored as {kind}", accepted)])


def _check_adapter(source: Source) -> None:
    """An adapter of another base has other shapes or names; a changed file has another hash (see ``verify``)."""
    if source.adapter is None:
        return
    from engine.export.adapter_names import module_of

    tensors, _ = read_header(source.adapter / "adapter_model.safetensors")
    for name, facts in tensors.items():
        module, part = module_of(name)
        weight = source.tensors.get(f"{module}.weight")
        accepted = f"an adapter of the base `{source.lineage.base.id}`"
        if weight is None:
            raise InputError([Problem(str(source.adapter), None, module, "a module that the base has not", accepted)])
        width = {"lora_A": weight.shape[1:], "lora_B": weight.shape[:1]}.get(part)
        if width is not None and facts.shape[1:] != width and part == "lora_A":
            found = f"an adapter for {facts.shape[1]} inputs where the base has {width[0]}"
            raise InputError([Problem(str(source.adapter), None, module, found, accepted)])
        if width is not None and part == "lora_B" and facts.shape[:1] != width:
            found = f"an adapter for {facts.shape[0]} outputs where the base has {width[0]}"
            raise InputError([Problem(str(source.adapter), None, module, found, accepted)])


def _check_vector(source: Source, vector: dict[str, Any]) -> None:
    path = source.run.path / vector["path"]
    tensors, _ = read_header(path)
    width, layers = source.text_config["hidden_size"], source.text_config["num_hidden_layers"]
    shape = tensors["direction"].shape if "direction" in tensors else ()
    if shape != (width,) or not 0 <= vector["layer"] < layers:
        found = f"a vector of width {shape[0] if shape else 'unknown'} for layer {vector['layer']}"
        accepted = f"one of width {width} for a layer from 0 to {layers - 1}: it belongs to another model"
        raise InputError([Problem(str(path), None, vector["name"], found, accepted)])


def verify(source: Source, progress: Progress = lambda *_: None) -> None:
    """Hash every file of the lineage against what the run wrote down. Raises InputError naming the one that differs."""
    wanted: list[tuple[Path, str, str]] = []
    for name, digest in source.lineage.base.files.items():
        wanted.append((source.base / name, digest, f"the base `{source.lineage.base.id}` that the run started from"))
    adapter = source.lineage.adapter
    if adapter is not None:
        path = source.run.path / adapter.path / "adapter_model.safetensors"
        wanted.append((path, adapter.sha256, "the adapter that the run wrote"))
    for entry in [*source.lineage.edits, *source.lineage.vectors]:
        wanted.append((source.run.path / entry["path"], entry["sha256"], f"what the {entry['method']} stage wrote"))
    for path, _, accepted in wanted:
        if not path.is_file():
            raise InputError([Problem(str(path), None, None, "no such file", accepted)])
    total, done = sum(path.stat().st_size for path, _, _ in wanted), 0
    for path, digest, accepted in wanted:
        hashed = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(CHUNK):
                hashed.update(block)
                done += len(block)
                progress("checking hashes", done, total)
        if hashed.hexdigest() != digest:
            found = f"another file (sha256 {hashed.hexdigest()[:16]}…)"
            raise InputError([Problem(str(path), None, None, found, f"{accepted} (sha256 {digest[:16]}…)")])
