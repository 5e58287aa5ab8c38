"""LoRA adapters: PEFT's files on disk, mlx-lm's layers in the model.

PEFT holds A (rank, in) and B (out, rank) and multiplies by alpha / rank; mlx-lm holds their transposes and ``scale``.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_unflatten
from mlx_lm.tuner.lora import LoRALinear

from engine.backends.initial_adapter import initial_lora_a
from engine.backends.interface import LoadSettings
from engine.backends.mlx.network import Weights
from recipes.errors import InputError, Problem

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
PREFIX = "base_model.model."
ATTENTION_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
UNSUPPORTED = ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out", "lora_bias")
"""What PEFT's file may ask beyond plain LoRA and this backend does not do."""


def linear_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every linear layer by its path, but for the language-model head."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | nn.QuantizedLinear) and not name.endswith("lm_head")
    }


def wanted_modules(model: nn.Module, targets: str | list[str]) -> list[str]:
    """Paths of the modules that get an adapter, in the model's own order. Raises InputError if a name fits none."""
    linear = linear_modules(model)
    if targets == "all-linear":
        return sorted(linear)
    names = list(ATTENTION_PROJECTIONS) if targets == "attention" else list(targets)
    missing = [name for name in names if not any(_fits(path, name) for path in linear)]
    if missing and targets != "attention":
        has = ", ".join(sorted({path.rsplit(".", 1)[-1] for path in linear}))
        raise InputError([Problem("recipe", None, "adapter.targets", f"`{missing[0]}`", f"linear layers: {has}")])
    return sorted(path for path in linear if any(_fits(path, name) for name in names))


def add_adapter(model: nn.Module, modules: list[str], rank: int, scale: float, dropout: float) -> None:
    """Put LoRA layers around those modules; only they train from here on."""
    model.freeze()
    found = linear_modules(model)
    layers = []
    for name in modules:
        layer = LoRALinear.from_base(found[name], r=rank, dropout=dropout, scale=scale)
        layer.linear.freeze()
        layers.append((name, layer))
    model.update_modules(tree_unflatten(layers))


def initial_weights(model: nn.Module, modules: list[str], settings: LoadSettings) -> Weights:
    """An adapter that changes nothing yet: the same bits as every backend's."""
    weights = {}
    for name in modules:
        layer = module_at(model, name)
        inputs, _ = layer.lora_a.shape
        outputs = layer.lora_b.shape[1]
        a = initial_lora_a(settings.seed, hub_name(name), settings.rank, inputs)
        weights[f"{name}.lora_a"] = mx.array(a.T)
        weights[f"{name}.lora_b"] = mx.zeros((settings.rank, outputs))
    return weights


def module_at(model: Any, path: str) -> Any:
    for part in path.split("."):
        model = model[int(part)] if part.isdigit() else model[part]
    return model


# ---- PEFT's files ------------------------------------------------------------------------------------------------


def hub_name(path: str) -> str:
    """The Hugging Face name of a module: the text part of a model that also sees is wrapped the other way round."""
    if path.startswith("language_model.model."):
        return "model.language_model." + path.removeprefix("language_model.model.")
    return path


def own_name(name: str) -> str:
    """The path in mlx-lm's model of a module with that Hugging Face name."""
    if name.startswith("model.language_model."):
        return "language_model.model." + name.removeprefix("model.language_model.")
    return name


def to_peft(weights: Weights) -> Weights:
    """lora_a (in, rank) and lora_b (rank, out) under PEFT's names, transposed."""
    found = {}
    for path, value in weights.items():
        module, _, kind = path.rpartition(".")
        found[f"{PREFIX}{hub_name(module)}.lora_{kind[-1].upper()}.weight"] = mx.contiguous(value.T)
    return found


def from_peft(tensors: Weights) -> Weights:
    """The reverse. Raises InputError on a tensor that is not LoRA's."""
    found = {}
    for name, value in tensors.items():
        module, _, kind = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        if kind not in ("lora_A", "lora_B"):
            raise InputError([Problem(TENSORS, None, name, "a tensor that is not LoRA's", "lora_A and lora_B only")])
        found[f"{own_name(module)}.lora_{kind[-1].lower()}"] = mx.contiguous(value.astype(mx.float32).T)
    return found


def read_config(folder: Path) -> dict[str, Any]:
    """PEFT's settings of an adapter. Raises InputError when it is another kind than plain LoRA."""
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA":
        raise InputError([Problem(str(path), None, "peft_type", f"`{config.get('peft_type')}`", "`LORA`")])
    for name in UNSUPPORTED:
        if config.get(name):
            accepted = "plain LoRA on the MLX backend; `--set backend=pytorch` carries this adapter on"
            raise InputError([Problem(str(path), None, name, f"`{config[name]}`", accepted)])
    return config


def scale_of(config: dict[str, Any]) -> float:
    """alpha / rank, or alpha / sqrt(rank) for a rank-stabilised adapter."""
    rank = config["r"]
    return config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank)


def write_adapter(folder: Path, weights: Weights, config: dict[str, Any]) -> None:
    """``folder`` in PEFT's format, loadable by PEFT on the plain base."""
    folder.mkdir(parents=True, exist_ok=True)
    mx.save_safetensors(str(folder / TENSORS), to_peft(weights), metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True))


def new_config(model: nn.Module, modules: list[str], settings: LoadSettings, base: str) -> dict[str, Any]:
    """PEFT's settings for a new adapter on those modules."""
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "lora_dropout": settings.dropout,
        "target_modules": _short_names(modules, linear_modules(model)),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "use_rslora": False,
        "use_dora": False,
    }


def modules_of(weights: Weights) -> list[str]:
    return sorted({path.rpartition(".")[0] for path in weights})


def _short_names(modules: list[str], linear: dict[str, nn.Module]) -> list[str]:
    """Last parts of the names, as PEFT writes them, unless those would also fit modules without an adapter."""
    last = sorted({name.rsplit(".", 1)[-1] for name in modules})
    fitting = [path for path in linear if any(_fits(path, name) for name in last)]
    return last if set(fitting) == set(modules) else [hub_name(name) for name in modules]


def _fits(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")
