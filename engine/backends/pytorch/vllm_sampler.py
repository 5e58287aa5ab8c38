"""What TRL's vLLM sampler (``trl.generation.vllm_generation.VLLMGeneration``) needs from us beside its settings."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import LoraLayer


def keep_base(sampler: Any) -> None:
    """Let the base's weights be the same bits after they were handed to vLLM as before.

    TRL adds the adapter to them and takes it away again each time. In 16 bit that rounds, and what it rounds adds up: after
    a thousand times weights were off by up to two thirds of their mean size (measured in trl#6688). So a copy stays in the
    CPU's memory, as large as the layers that have an adapter, and is written back. Without an adapter nothing is added.
    """
    layers = [module.get_base_layer() for module in sampler.model.modules() if isinstance(module, LoraLayer)]
    weights = [weight for layer in layers for weight in layer.parameters()]
    kept = [weight.detach().to("cpu", copy=True) for weight in weights]
    hand_over = sampler.sync_weights

    def sync_weights() -> None:
        hand_over()
        with torch.no_grad():
            for weight, bits in zip(weights, kept, strict=True):
                weight.copy_(bits)

    sampler.sync_weights = sync_weights


def answer_to_the_limit(sampler: Any, prompts: list[list[int]], group_size: int) -> None:
    """Hand the weights over and let every completion grow as long as it may: what that takes must be there."""
    asked = sampler.generation_kwargs
    sampler.generation_kwargs = {**asked, "ignore_eos": True}
    try:
        sampler.sync_weights()
        sampler.generate(prompts=prompts, images=None, num_generations=group_size)
    finally:
        sampler.generation_kwargs = asked
