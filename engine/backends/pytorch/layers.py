"""Where a decoder writes into its residual stream: its layers, and in each what attention and MLP add to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from engine.backends.pytorch.divergence import backbone
from engine.backends.pytorch.heads import causal_model
from recipes.errors import InputError, Problem

Component = Literal["attention", "mlp"]
BLOCKS: dict[Component, tuple[str, ...]] = {
    "attention": ("self_attn", "attn", "attention", "self_attention", "linear_attn", "mixer", "temporal_block"),
    "mlp": ("mlp", "feed_forward", "block_sparse_moe", "moe", "ffn"),
}
PROJECTIONS: dict[Component, tuple[str, ...]] = {
    "attention": ("o_proj", "out_proj", "c_proj", "dense", "wo"),
    "mlp": ("down_proj", "c_proj", "fc2", "dense_4h_to_h", "w2", "fc_out"),
}
EXPERTS = ("experts", "router", "gate_up_proj")


@dataclass(frozen=True)
class Writer:
    """A module whose output goes into the residual stream, by its name below the causal model."""

    layer: int
    component: Component
    module: str
    linear: bool
    """Its output is one matrix times its input; otherwise it is a whole block (fused experts), which has no rows
    whose norms an edit could keep: there only the plain form is exact."""


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
    """What every layer writes into the residual stream: two writers a layer, in order.

    Raises InputError naming each layer in which one cannot be told: a layer that is skipped would keep what an edit
    is to remove.
    """
    names = {id(module): name for name, module in causal_model(model).named_modules()}
    found, problems = [], []
    for index, layer in enumerate(decoder_layers(model)):
        for component in BLOCKS:
            block = next((getattr(layer, name) for name in BLOCKS[component] if hasattr(layer, name)), None)
            if block is None:
                has = ", ".join(name for name, _ in layer.named_children())
                words = " or ".join(f"`{name}`" for name in BLOCKS[component])
                problems.append(Problem("model", None, f"layer {index}", f"the parts {has}", f"{words} ({component})"))
                continue
            found.append(_writer(names, index, component, block))
    if problems:
        raise InputError(problems)
    return found


def _writer(names: dict[int, str], layer: int, component: Component, block: torch.nn.Module) -> Writer:
    experts = any(hasattr(block, name) for name in EXPERTS) and not hasattr(block, "down_proj")
    if not experts:
        for name in PROJECTIONS[component]:
            module = getattr(block, name, None)
            if module is not None:
                return Writer(layer, component, names[id(module)], linear=True)
    return Writer(layer, component, names[id(block)], linear=False)
