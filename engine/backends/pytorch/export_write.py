"""Write an export into its draft folder. One function a form; the weights stream through, one tensor at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from engine.backends.pytorch.export_adapter import write_mlx, write_peft
from engine.backends.pytorch.export_merge import MergedWeights, raw_bytes
from engine.export.gguf_vocabulary import read_vocabulary
from engine.export.gguf_write import write_control_vector, write_gguf
from engine.export.tensors import write_file
from recipes.errors import InputError, Problem

Say = Callable[..., None]
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "tokenizer.model",
    "vocab.json", "merges.txt", "added_tokens.json",
)  # fmt: skip


def weights_of(request: dict[str, Any]) -> MergedWeights:
    run = Path(request["run"])
    lineage = request["lineage"]
    adapter = None if lineage["adapter"] is None else run / lineage["adapter"]["path"]
    edits = [(run / edit["path"], edit["strength"]) for edit in lineage["edits"]]
    return MergedWeights(Path(request["base"]), adapter, edits)


def write(request: dict[str, Any], say: Say) -> None:
    out = Path(request["out"])
    form = request["form"]
    if form == "control-vector":
        return _control_vector(request, out)
    weights = weights_of(request)
    if form == "adapter":
        write_peft(weights, weights_adapter(request), base_name(request), out)
        copy_tokenizer(request, out)
    elif form == "mlx-adapter":
        write_mlx(weights, out)
    elif form in ("merged", "mlx", "steered"):
        write_merged(request, weights, out, say)
        if form == "steered":
            _vectors(request, out)
    elif form in ("gguf", "ollama"):
        _gguf(request, weights, out, say)
    else:
        raise ValueError(f"unknown form {form}")


def weights_adapter(request: dict[str, Any]) -> Path | None:
    adapter = request["lineage"]["adapter"]
    return None if adapter is None else Path(request["run"]) / adapter["path"]


def base_name(request: dict[str, Any]) -> str:
    """What a loader is to look for: the hub's id, or where the base lies on this machine."""
    name = request["lineage"]["base"]["id"]
    return name if name.count("/") == 1 and not name.startswith((".", "/", "~")) else request["base"]


def copy_tokenizer(request: dict[str, Any], out: Path) -> None:
    """The tokenizer that the run used, its template included, and SentencePiece's own file from the base."""
    used, base = Path(request["tokenizer"]), Path(request["base"])
    for name in TOKENIZER:
        source = next((folder / name for folder in (used, base) if (folder / name).is_file()), None)
        if source is not None and (source.parent == used or name == "tokenizer.model"):
            shutil.copyfile(source, out / name)
    told = (
        json.loads((used / "tokenizer_config.json").read_text()) if (used / "tokenizer_config.json").is_file() else {}
    )
    if request["template"] and not (out / "chat_template.jinja").is_file() and not told.get("chat_template"):
        (out / "chat_template.jinja").write_text(request["template"], encoding="utf-8")  # what the run talked in


def write_merged(request: dict[str, Any], weights: MergedWeights, out: Path, say: Say) -> None:
    """A transformers folder in 16 bit, in the base's own shards."""
    total, done = sum(facts.elements for facts in weights.facts.values()), 0

    def after(name: str) -> None:
        nonlocal done
        done += weights.facts[name].elements
        say("merging", done, total)

    placed: dict[str, str] = {}
    size = 0
    for shard in sorted({facts.file for facts in weights.facts.values()}):
        names = [name for name, facts in weights.facts.items() if facts.file == shard]
        entries = {name: (weights.dtype_of(name), weights.facts[name].shape) for name in names}
        write_file(out / shard.name, entries, lambda name: raw_bytes(weights.exported(name)), after)
        placed |= dict.fromkeys(names, shard.name)
        size += (out / shard.name).stat().st_size
    if len(set(placed.values())) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": placed}
        (out / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    config = dict(weights.config)
    types = {weights.dtype_of(name) for name, facts in weights.facts.items() if len(facts.shape) > 1}
    config.pop("torch_dtype", None)
    config["dtype"] = "float16" if types == {"F16"} else "bfloat16"
    (out / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    generation = Path(request["base"]) / "generation_config.json"
    if generation.is_file():
        shutil.copyfile(generation, out / "generation_config.json")
    copy_tokenizer(request, out)


def _gguf(request: dict[str, Any], weights: MergedWeights, out: Path, say: Say) -> None:
    config = weights.config.get("text_config") or weights.config
    total, done = sum(facts.elements for facts in weights.facts.values()), 0

    def after(name: str) -> None:
        nonlocal done
        done += weights.facts[name].elements
        say(f"writing {request['type'].upper()}", done, total)

    def tensor(name: str) -> Any:
        values = weights.merged(name).float().numpy()
        if request["type"] == "f16" and values.ndim > 1 and abs(values).max(initial=0) > 65504:
            found = "weights above 65504, which 16-bit floats cannot hold"
            raise InputError([Problem("model", None, name, found, "`--type bf16` or `--type q8_0`")])
        return values

    vocabulary = read_vocabulary(Path(request["tokenizer"]), _rows(weights), request["stops"], request["template"])
    shapes = {name: facts.shape for name, facts in weights.facts.items()}
    write_gguf(out / "model.gguf", config, vocabulary, shapes, tensor, request["type"], request["about"], after)


def _rows(weights: MergedWeights) -> int:
    """Rows of the embedding: as many tokens as a GGUF file must name."""
    name = next(name for name in weights.facts if name.endswith("embed_tokens.weight"))
    return weights.facts[name].shape[0]


def _vectors(request: dict[str, Any], out: Path) -> None:
    """The vectors beside the weights, with the loader that hangs them on."""
    from engine.interventions.vectors import load_vector

    tensors: dict[str, torch.Tensor] = {}
    facts = []
    layers = (json.loads((out / "config.json").read_text())).get("num_hidden_layers")
    for entry in request["lineage"]["vectors"]:
        vector = load_vector(Path(request["run"]) / entry["path"], entry["strength"])
        tensors[vector.name] = torch.from_numpy(vector.direction)
        fact: dict[str, Any] = {
            "name": vector.name, "layer": vector.layer, "layers": layers, "calibrated": vector.calibrated,
            "strength": vector.strength, "window": vector.window,
        }  # fmt: skip
        if vector.condition is not None:
            tensors[f"{vector.name}.condition"] = torch.from_numpy(vector.condition.direction)
            fact["condition"] = {"layer": vector.condition.layer, "threshold": vector.condition.threshold}
        facts.append(fact)
    save_file(tensors, out / "vectors.safetensors")
    (out / "vectors.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    shutil.copyfile(Path(__file__).with_name("export_loader.py"), out / "load.py")


def _control_vector(request: dict[str, Any], out: Path) -> None:
    from engine.interventions.vectors import load_vector

    directions: dict[int, Any] = {}
    for entry in request["lineage"]["vectors"]:
        if not entry["strength"]:
            continue
        vector = load_vector(Path(request["run"]) / entry["path"], entry["strength"])
        added = vector.coefficient * vector.direction
        directions[vector.layer] = directions.get(vector.layer, 0) + added
    config = json.loads((Path(request["base"]) / "config.json").read_text(encoding="utf-8"))
    layers = (config.get("text_config") or config)["num_hidden_layers"]
    write_control_vector(out / "vectors.gguf", request["hint"], layers, directions, request["about"])
