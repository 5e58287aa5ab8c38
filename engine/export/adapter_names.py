"""PEFT's names for an adapter's tensors."""

from __future__ import annotations

from recipes.errors import InputError, Problem

PREFIX = "base_model.model."
PARTS = ("lora_A", "lora_B")


def module_of(name: str) -> tuple[str, str]:
    """``base_model.model.model.layers.0.mlp.up_proj.lora_A.weight`` -> (``model.layers.0.mlp.up_proj``, ``lora_A``).

    Raises InputError for a tensor that is no LoRA matrix (of an embedding, a magnitude, a whole saved module).
    """
    words = name.removeprefix(PREFIX).split(".")
    if len(words) < 3 or words[-1] != "weight" or words[-2] not in PARTS:
        accepted = "LoRA matrices of linear modules, as the runs here train them"
        raise InputError([Problem("adapter_model.safetensors", None, name, "a tensor of another kind", accepted)])
    return ".".join(words[:-2]), words[-2]
