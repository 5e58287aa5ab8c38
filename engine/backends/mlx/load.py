"""Load a policy by its lineage: the base in the wanted precision, and the one adapter that is carried through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_lm.utils import load_model, quantize_model
from transformers import AutoTokenizer

from engine.backends.interface import LoadSettings
from engine.backends.mlx import adapters
from engine.backends.mlx.device import pick_dtype, prepare
from engine.backends.mlx.interventions import attach
from engine.backends.mlx.lacks import check_kernels, check_training
from engine.backends.mlx.network import Network
from engine.backends.mlx.policy import MLXPolicy
from engine.backends.tokens import ensure_chat_template
from engine.models.lineage import Lineage
from recipes.errors import InputError, Problem

BITS = {"4bit": 4, "8bit": 8}
GROUPS = (64, 32)
"""Weights that share a scale; the smaller where the model's dimensions are no multiples of the larger."""


def load_policy(lineage: Lineage, run_folder: Path, settings: LoadSettings) -> MLXPolicy:
    """The lineage's base plus its adapter (a new one with the recipe's rank if it has none), ready to train.

    Raises InputError when the base or the adapter is of a form that this backend cannot take, told with the path.
    """
    check_kernels(settings.attention, settings.fixed_order)
    prepare()
    folder = Path(lineage.base.path)
    folder = folder if folder.is_absolute() else run_folder / folder
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    ensure_chat_template(tokenizer)
    model, config = load_base(folder, settings)
    stops = stop_tokens(config, tokenizer)
    quantized = "quantization" in config
    check_training(settings.training == "full", settings.dropout, settings.gradient_checkpointing, quantized)
    if settings.training == "full":
        model.unfreeze()
        network = Network(model, *sizes(config))
        return MLXPolicy(
            network, tokenizer, settings, folder, stops, interventions=attach(network, lineage, run_folder)
        )
    adapter = None
    mx.random.seed(settings.seed)
    if lineage.adapter is not None:
        path = run_folder / lineage.adapter.path
        adapter = adapters.read_config(path)
        weights = adapters.from_peft(mx.load(str(path / adapters.TENSORS)))
        modules = adapters.modules_of(weights)
        check_modules(path, modules, model)
        adapters.add_adapter(model, modules, adapter["r"], adapters.scale_of(adapter), adapter.get("lora_dropout", 0.0))
    elif settings.training == "lora":
        modules = adapters.wanted_modules(model, settings.targets)
        adapter = adapters.new_config(model, modules, settings, lineage.base.id)
        adapters.add_adapter(model, modules, settings.rank, adapters.scale_of(adapter), settings.dropout)
        weights = adapters.initial_weights(model, modules, settings)
    else:
        model.freeze()
        weights = {}
    network = Network(model, *sizes(config))
    network.use(weights)
    mx.eval(model.parameters())
    acting = attach(network, lineage, run_folder)
    return MLXPolicy(network, tokenizer, settings, folder, stops, adapter, acting)


def load_base(folder: Path, settings: LoadSettings) -> tuple[nn.Module, dict[str, Any]]:
    """The base model alone and its config, with ``quantization`` in it where the weights are quantized."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    check_form(folder, config)
    try:
        model, config = load_model(
            folder, lazy=True, model_config=_rope(config), trust_remote_code=settings.trust_remote_code
        )
    except ValueError as error:
        accepted = "a model that mlx-lm knows; `--set backend=pytorch` runs what transformers knows"
        raise InputError([Problem(str(folder), None, "model", str(error), accepted)]) from error
    model.set_dtype(pick_dtype(settings.dtype))
    bits = BITS.get(settings.quantization)
    if bits and "quantization" not in config:
        model, config = quantize_model(model, config, _group(model), bits)
    model.eval()
    return model, config


def check_form(folder: Path, config: dict[str, Any]) -> None:
    """Raises InputError for weights that only another backend can read."""
    method = (config.get("quantization_config") or {}).get("quant_method")
    if method == "bitsandbytes":
        found = "weights quantized with bitsandbytes, which MLX cannot read"
        accepted = "the original model with `quantization: 4bit` (MLX quantizes on load), or `backend: pytorch`"
        raise InputError([Problem(str(folder), None, "model", found, accepted)])


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """transformers 5 keeps the rotary settings in ``rope_parameters``; several of mlx-lm's models still look for
    ``rope_theta`` and would silently take their default."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, dict) or "rope_theta" not in rope:
        return {}
    found: dict[str, Any] = {}
    if "rope_theta" not in config:
        found["rope_theta"] = rope["rope_theta"]
    if rope.get("rope_type", "default") != "default" and not config.get("rope_scaling"):
        found["rope_scaling"] = rope
    return found


def _group(model: nn.Module) -> int:
    widths = [module.weight.shape[-1] for module in adapters.linear_modules(model).values()]
    return next((size for size in GROUPS if all(width % size == 0 for width in widths)), GROUPS[0])


def stop_tokens(config: dict[str, Any], tokenizer: Any) -> set[int]:
    """The ids that end a turn: the model's own, else the tokenizer's."""
    own = config.get("eos_token_id")
    own = tokenizer.eos_token_id if own is None else own
    return set(own) if isinstance(own, list) else {own}


def sizes(config: dict[str, Any]) -> tuple[int, int]:
    """``(vocabulary, width of the residual stream)``."""
    text = config if "hidden_size" in config else config["text_config"]
    return text["vocab_size"], text["hidden_size"]


def check_modules(path: Path, modules: list[str], model: nn.Module) -> None:
    """Raises InputError for an adapter of modules that this model does not have."""
    linear = adapters.linear_modules(model)
    missing = [name for name in modules if name not in linear]
    if missing:
        found = f"an adapter for `{missing[0]}`"
        accepted = "one for linear layers of this model; `--set backend=pytorch` carries others on"
        raise InputError([Problem(str(path), None, None, found, accepted)])
