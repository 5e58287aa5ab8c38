"""What could make a stage faster and whether it is used, in words for the stage's log."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

GROUPED = ("grpo", "rlvr")


def told(policy: Any, stage: Any, installed: Callable[[str], object] | None = None) -> list[str]:
    """One line for each optional speed-up: what is used, or what is not and why. ``installed`` looks a package up."""
    has = installed or importlib.util.find_spec
    cuda = policy.device.type == "cuda"
    model = getattr(policy.model, "config", None)
    attention = getattr(model, "_attn_implementation", None) or "the model's own"
    lines = [
        f"attention: {attention}"
        + (" (on CUDA PyTorch picks its flash kernel where no mask is needed)" if cuda else "")
    ]
    optimizer = getattr(stage, "optimizer", "adamw")
    if optimizer == "adamw":
        why = (
            "`optimizer: adamw-8bit` or `paged-adamw-8bit` saves its memory"
            if cuda
            else "8 bit saves memory on CUDA only"
        )
        lines.append(f"optimizer: AdamW in full precision; {why}")
    else:
        lines.append(f"optimizer: {optimizer}, by bitsandbytes")
    if getattr(stage, "method", "") in GROUPED:
        lines.append(generation(cuda, has))
    lines.append("torch.compile: not used; packing: not used, so that every row is its own sequence")
    return [f"speed-ups: {line}" for line in lines]


def uses_vllm(cuda: bool, has: Callable[[str], object] = importlib.util.find_spec) -> bool:
    """Completions are sampled by vLLM where it is installed and there is a CUDA device."""
    return cuda and has("vllm") is not None


def generation(cuda: bool, has: Callable[[str], object] = importlib.util.find_spec) -> str:
    """Who samples the completions, and why not vLLM."""
    if uses_vllm(cuda, has):
        return "completions: sampled by vLLM, in this process"
    why = "vLLM is not installed" if cuda else "vLLM needs a CUDA device"
    return f"completions: sampled by transformers ({why})"
