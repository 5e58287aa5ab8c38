"""Where a decoder writes into its residual stream: in each of its layers, what attention and MLP add to it.

The names of the parts are the same in transformers and mlx-lm; a backend gives the layers and how to ask their parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

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
EXPERTS = ("experts", "router", "gate_up_proj", "switch_mlp")


@dataclass(frozen=True)
class Writer:
    """A module whose output goes into the residual stream, by its name below the causal model."""

    layer: int
    component: Component
    module: str
    linear: bool
    """Its output is one matrix times its input; otherwise it is a whole block (fused experts), which has no rows
    whose norms an edit could keep: there only the plain form is exact."""


def find_writers(
    layers: Sequence[Any],
    name_of: Callable[[Any], str],
    parts: Callable[[Any], Mapping[str, Any]],
    has_matrices: Callable[[Any], bool],
) -> list[Writer]:
    """What every layer writes into the residual stream: two writers a layer, in order.

    Raises InputError naming each layer in which one cannot be told, and each that has a further part with matrices (a
    shared expert beside the others, a Mamba mixer beside the attention): what is skipped would keep what an edit is to
    remove.
    """
    found, problems = [], []
    for index, layer in enumerate(layers):
        taken = set()
        for component in BLOCKS:
            block = next((getattr(layer, name) for name in BLOCKS[component] if hasattr(layer, name)), None)
            if block is None:
                words = " or ".join(f"`{name}`" for name in BLOCKS[component])
                has = ", ".join(parts(layer))
                problems.append(Problem("model", None, f"layer {index}", f"the parts {has}", f"{words} ({component})"))
                continue
            taken.add(id(block))
            found.append(_writer(name_of, index, component, block))
        for name, part in parts(layer).items():
            if id(part) not in taken and has_matrices(part):
                accepted = "layers that write into the stream by one attention and one MLP"
                problems.append(Problem("model", None, f"layer {index}", f"the part `{name}` beside them", accepted))
    if problems:
        raise InputError(problems)
    return found


def _writer(name_of: Callable[[Any], str], layer: int, component: Component, block: Any) -> Writer:
    experts = any(hasattr(block, name) for name in EXPERTS) and not hasattr(block, "down_proj")
    if not experts:
        for name in PROJECTIONS[component]:
            module = getattr(block, name, None)
            if module is not None:
                return Writer(layer, component, name_of(module), linear=True)
    return Writer(layer, component, name_of(block), linear=False)
