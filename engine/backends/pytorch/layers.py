"""Where a PyTorch decoder's layers are, and where they write into its residual stream."""

from __future__ import annotations

from typing import Any

import torch

from engine.backends.pytorch.divergence import backbone
from engine.backends.pytorch.heads import causal_model
from engine.interventions.writers import Writer, find_writers
from recipes.errors import InputError, Problem


def decoder_layers(model: Any) -> list[torch.nn.Module]:
    """The decoder layers in order. Raises InputError naming the architecture that has none to be found."""
    inner = causal_model(model)
    depth = getattr(inner.config.get_text_config(), "num_hidden_layers", None)
    for module in backbone(model).modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == depth and hasattr(module[0], "forward"):
            return list(module)
    found = f"the architecture {type(inner).__name__}"
    raise InputError([Problem("model", None, None, found, "one with a list of decoder layers")])


def writers(model: Any) -> list[Writer]:
    """What every layer writes into the residual stream. Raises InputError naming a layer where that cannot be told."""
    names = {id(module): name for name, module in causal_model(model).named_modules()}
    return find_writers(
        decoder_layers(model),
        lambda module: names[id(module)],
        lambda layer: dict(layer.named_children()),
        lambda part: any(tensor.dim() > 1 for tensor in part.parameters()),
    )
