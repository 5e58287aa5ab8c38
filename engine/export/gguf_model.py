"""What a GGUF file says of a model: the architecture's name, its figures, its tensors' names and how they are stored.

The families that are written here: Llama (and Mistral, which llama.cpp reads as Llama), Qwen 2 and 3, Gemma 1 to 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, GGUFWriter, RopeScalingType, get_tensor_name_map
from numpy.typing import NDArray

from engine.export.tools import LLAMA_CPP
from recipes.errors import InputError, Problem

FAMILIES = {
    "llama": MODEL_ARCH.LLAMA, "mistral": MODEL_ARCH.LLAMA, "qwen2": MODEL_ARCH.QWEN2, "qwen3": MODEL_ARCH.QWEN3,
    "gemma": MODEL_ARCH.GEMMA, "gemma2": MODEL_ARCH.GEMMA2, "gemma3_text": MODEL_ARCH.GEMMA3,
}  # fmt: skip
"""config.json's model_type -> GGUF's architecture."""
GEMMAS = ("gemma", "gemma2", "gemma3_text")
WORDS = {MODEL_ARCH.LLAMA: "llama", MODEL_ARCH.QWEN2: "qwen2", MODEL_ARCH.QWEN3: "qwen3", MODEL_ARCH.GEMMA: "gemma",
         MODEL_ARCH.GEMMA2: "gemma2", MODEL_ARCH.GEMMA3: "gemma3"}  # fmt: skip
SWA_PERIOD = {"gemma2": 2, "gemma3_text": 6}
"""Every n-th layer attends to everything; llama.cpp has these periods built in."""
Array = NDArray[Any]


def architecture(config: dict[str, Any]) -> MODEL_ARCH:
    """Raises InputError for a family that is not written here, with the way to get it all the same."""
    kind = config.get("model_type", "?")
    if kind not in FAMILIES or config.get("num_local_experts") or config.get("num_experts"):
        accepted = f"{', '.join(FAMILIES)}; others where llama.cpp's convert_hf_to_gguf.py is installed: {LLAMA_CPP}"
        raise InputError([Problem("config.json", None, "model_type", f"`{kind}`", accepted)])
    _refuse_other_shapes(config, kind)
    return FAMILIES[kind]


def _refuse_other_shapes(config: dict[str, Any], kind: str) -> None:
    """What llama.cpp has built in and a config could contradict."""
    heads, width = config["num_attention_heads"], config["hidden_size"]
    scalar, head = config.get("query_pre_attn_scalar"), head_width(config)
    if kind in ("gemma2", "gemma3_text") and scalar not in (None, head, width // heads):
        found = f"attention scaled by {scalar}"
        raise InputError([Problem("config.json", None, "query_pre_attn_scalar", found, f"{head} or {width // heads}")])
    layers = config.get("layer_types")
    period = SWA_PERIOD.get(kind)
    if layers and period:
        wanted = ["full_attention" if (n + 1) % period == 0 else "sliding_attention" for n in range(len(layers))]
        if layers != wanted:
            accepted = f"full attention in every layer whose number {period} divides"
            raise InputError([Problem("config.json", None, "layer_types", "another pattern of layers", accepted)])
    if config.get("hidden_act") not in (None, "silu", "gelu_pytorch_tanh", "gelu"):
        raise InputError([Problem("config.json", None, "hidden_act", f"`{config['hidden_act']}`", "silu or gelu")])


def head_width(config: dict[str, Any]) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def rope(config: dict[str, Any]) -> dict[str, Any]:
    """``theta``, ``local`` (Gemma 3's sliding layers) and ``scaling``, from either form that config.json may have."""
    found = config.get("rope_parameters") or {}
    full = found.get("full_attention", found)
    local = found.get("sliding_attention", {}).get("rope_theta", config.get("rope_local_base_freq"))
    scaling = config.get("rope_scaling") or full
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    theta = full.get("rope_theta", config.get("rope_theta", 10000.0))
    return {"theta": float(theta), "local": local, "kind": kind, "scaling": scaling}


def tensor_names(config: dict[str, Any]) -> Callable[[str], str]:
    """The function from the checkpoint's names to GGUF's. It raises InputError for a tensor that has no place there."""
    names = get_tensor_name_map(architecture(config), config["num_hidden_layers"])

    def renamed(name: str) -> str:
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise InputError(
                [Problem("model", None, name, "a tensor that GGUF has no name for", "the family's tensors")]
            )
        return found

    return renamed


def skipped(name: str, config: dict[str, Any]) -> bool:
    """A head that shares the embedding's weight is not written twice; stored frequencies are worked out anew."""
    return name.endswith("rotary_emb.inv_freq") or (
        name == "lm_head.weight" and config.get("tie_word_embeddings", config["model_type"] in GEMMAS)
    )


def as_gguf(name: str, tensor: Array, config: dict[str, Any]) -> Array:
    """A float32 tensor as llama.cpp's graph wants it: Llama's query and key rows interleaved, Gemma's norms plus 1."""
    if config["model_type"] in ("llama", "mistral") and ".self_attn." in name:
        if ".q_proj." in name:
            return _interleaved(tensor, config["num_attention_heads"])
        if ".k_proj." in name:
            return _interleaved(tensor, config.get("num_key_value_heads") or config["num_attention_heads"])
    if config["model_type"] in GEMMAS and name.endswith("norm.weight"):
        return tensor + 1
    return tensor


def _interleaved(tensor: Array, heads: int) -> Array:
    """Rotary pairs (i, i + d/2) of each head become neighbours (2i, 2i + 1)."""
    width = tensor.shape[0] // heads
    return tensor.reshape(heads, 2, width // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def rope_factors(config: dict[str, Any]) -> Array | None:
    """Llama 3's frequency factors (``rope_freqs.weight``), by its scaling rule; None for other models."""
    found = rope(config)
    if found["kind"] != "llama3":
        return None
    scaling, width = found["scaling"], head_width(config)
    frequencies = 1.0 / found["theta"] ** (np.arange(0, width, 2, dtype=np.float32) / width)
    factor, low, high = (float(scaling[name]) for name in ("factor", "low_freq_factor", "high_freq_factor"))
    context = float(scaling["original_max_position_embeddings"])
    waves = 2 * math.pi / frequencies
    smooth = np.clip((context / waves - low) / (high - low), 0, 1)
    # 1/((1 - smooth)/factor + smooth) is 1 for short waves and the whole factor for long ones.
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def add_figures(writer: GGUFWriter, config: dict[str, Any], vocabulary: int) -> None:
    """The architecture's own keys. Raises InputError for a position encoding that GGUF cannot say."""
    kind, heads = config["model_type"], config["num_attention_heads"]
    writer.add_vocab_size(vocabulary)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    writer.add_layer_norm_rms_eps(config.get("rms_norm_eps", 1e-6))
    width = head_width(config)
    if kind in ("llama", "mistral"):
        writer.add_rope_dimension_count(width)
    if kind not in ("qwen2",):
        writer.add_key_length(width)
        writer.add_value_length(width)
    if kind == "gemma2":
        writer.add_attn_logit_softcapping(config.get("attn_logit_softcapping") or 50.0)
        writer.add_final_logit_softcapping(config.get("final_logit_softcapping") or 30.0)
    if kind in SWA_PERIOD:
        writer.add_sliding_window(config.get("sliding_window") or 4096)
    found = rope(config)
    writer.add_rope_freq_base(found["theta"])
    if kind == "gemma3_text" and found["local"]:
        writer.add_rope_freq_base_swa(float(found["local"]))
    scaling = found["scaling"]
    if found["kind"] == "linear":
        writer.add_rope_scaling_type(RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(scaling["factor"]))
    elif found["kind"] == "yarn":
        writer.add_rope_scaling_type(RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(scaling["factor"]))
        writer.add_rope_scaling_orig_ctx_len(int(scaling["original_max_position_embeddings"]))
    elif found["kind"] not in ("default", "llama3"):
        accepted = "default, linear, yarn or llama3"
        raise InputError([Problem("config.json", None, "rope_scaling", f"`{found['kind']}`", accepted)])
