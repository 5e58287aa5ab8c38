"""Who samples the completions of GRPO and RLVR, and why: vLLM where it can, else transformers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from recipes.errors import InputError, Problem
from recipes.generation import ACCEPTED, EDITED, quantized

SHARE = 0.3
"""Of the GPU's memory, what vLLM takes when it starts, for its own weights in 16 bit and its cache: TRL's default."""
GIB = 2**30


@dataclass(frozen=True)
class Facts:
    """What the choice depends on. ``device`` is a type of torch's; ``edited``: edits or vectors act on the model;
    ``weights``: bytes of the base's in 16 bit; ``free`` and ``memory``: bytes of the GPU, None where there is none."""

    device: str
    installed: bool
    edited: bool
    quantization: str
    weights: int = 0
    free: int | None = None
    memory: int | None = None


@dataclass(frozen=True)
class Generation:
    """Whether vLLM samples, in the process that trains; else transformers does."""

    vllm: bool
    why: str


def pick_generation(wanted: str, facts: Facts) -> Generation:
    """``auto`` is vLLM where it can be. Raises InputError where it is asked for by name and cannot be."""
    if wanted == "transformers":
        return Generation(False, "as the recipe says")
    missing = _missing(facts)
    if missing is None:
        return Generation(True, "as the recipe says" if wanted == "vllm" else "it is installed")
    if wanted == "vllm":
        raise InputError([Problem("recipe", None, "generation", f"`vllm`, but {missing}", ACCEPTED)])
    return Generation(False, missing)


def _missing(facts: Facts) -> str | None:
    """The first thing that keeps vLLM from sampling."""
    if facts.device != "cuda":
        return "vLLM needs a CUDA device"
    if not facts.installed:
        return "vLLM is not installed"
    if facts.edited:
        return EDITED
    if facts.quantization != "none":
        return quantized(facts.quantization)
    if facts.free is None or facts.memory is None:
        return None
    taken = SHARE * facts.memory
    if facts.weights >= taken:
        return f"the weights ({facts.weights / GIB:.1f} GiB) fill the {taken / GIB:.1f} GiB of the GPU that vLLM takes"
    if facts.free < taken:
        return f"{facts.free / GIB:.1f} GiB of the GPU are free, less than the {taken / GIB:.1f} GiB that vLLM takes"
    return None


def generation_of(policy: Any, stage: Any, has: Callable[[str], object] | None = None) -> Generation:
    """The choice for a loaded policy and a stage of GRPO or RLVR. ``has`` looks a package up."""
    return pick_generation(getattr(stage, "generation", "auto"), facts_of(policy, has or importlib.util.find_spec))


def facts_of(policy: Any, has: Callable[[str], object]) -> Facts:
    free, memory, weights = None, None, 0
    if policy.device.type == "cuda" and torch.cuda.is_available():
        free, memory = torch.cuda.mem_get_info(policy.device)
        weights = sum(2 * value.numel() for name, value in policy.model.named_parameters() if "lora_" not in name)
    return Facts(
        device=policy.device.type,
        installed=has("vllm") is not None,
        edited=bool(policy.interventions.lineage),
        quantization=policy.settings.quantization,
        weights=weights,
        free=free,
        memory=memory,
    )


def generation_arguments(policy: Any, stage: Any) -> dict[str, Any]:
    """The fields of TRL's GRPOConfig that follow the choice. Several processes have a vLLM each, on their own device."""
    if not generation_of(policy, stage).vllm:
        return {"use_vllm": False}
    positions = getattr(policy.model.config.get_text_config(), "max_position_embeddings", None)
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": SHARE,
        # Else vLLM wants room for the longest text that the model can read, and refuses to start on a smaller GPU.
        "vllm_max_model_length": min(stage.max_length, positions or stage.max_length),
        "trust_remote_code": policy.settings.trust_remote_code,
    }
