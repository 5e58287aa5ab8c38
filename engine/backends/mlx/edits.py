"""Edits (engine.interventions.edits) hooked onto the modules of an mlx-lm model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.tuner.lora import LoRALinear

from engine.backends.mlx.adapters import module_at, own_name
from engine.backends.mlx.hooks import After, Hook
from engine.backends.mlx.network import Network
from engine.interventions.edits import Edit, Rows
from recipes.errors import InputError, Problem


def applied(edit: Edit, output: mx.array, strength: float) -> mx.array:
    """The edited output (..., H), computed in float32 and given back in the output's own type."""
    if "mlx" not in edit.placed:
        edit.placed["mlx"] = tuple(mx.array(getattr(edit, name)) for name in edit.names())
    u, w, *norms = edit.placed["mlx"]
    wide = output.astype(mx.float32)
    amount = strength * edit.weight
    edited = wide - amount * (wide @ w)[..., None] * u
    if norms:
        a, b = norms
        edited = edited * mx.rsqrt(mx.maximum(1 - 2 * amount * a + amount**2 * b, 1e-12))
    return edited.astype(output.dtype)


class EditSet:
    """Edits that belong together under one strength dial, hooked onto a model until ``detach``."""

    def __init__(self, network: Network, edits: Sequence[Edit], strength: float = 1.0) -> None:
        self.edits = list(edits)
        self.strength = strength
        self.active = True
        self._hooks = [Hook(_module(network, edit), self._hook(edit)) for edit in edits]

    def _hook(self, edit: Edit) -> After:
        def after(output: Any) -> Any:
            if not self.active or not self.strength * edit.weight:
                return output  # untouched: the model as it is, bit for bit
            return applied(edit, output, self.strength)

        return after

    def detach(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


def _module(network: Network, edit: Edit) -> nn.Module:
    try:
        module = module_at(network.model, own_name(edit.module))
    except (AttributeError, KeyError, IndexError, ValueError):
        module = None
    if not isinstance(module, nn.Module):
        accepted = "edits of this model's modules; `--set backend=pytorch` carries on what only it names so"
        raise InputError([Problem("edits", None, edit.module, "an edit of a module that is not there", accepted)])
    return module


def effective_weight(module: Any) -> mx.array:
    """The matrix (out, in) that a linear layer applies, dequantized, with its adapter, in float32."""
    linear = module.linear if isinstance(module, LoRALinear) else module
    if isinstance(linear, nn.QuantizedLinear):
        weight = mx.dequantize(
            linear.weight,
            linear.scales,
            linear.get("biases"),
            group_size=linear.group_size,
            bits=linear.bits,
            mode=linear.mode,
        )
    else:
        weight = linear.weight
    weight = weight.astype(mx.float32)
    if isinstance(module, LoRALinear):
        weight = weight + module.scale * (module.lora_a @ module.lora_b).T.astype(mx.float32)
    return weight


def row_products(matrix: mx.array, unit: np.ndarray) -> Rows:
    """In float64, which only the CPU has."""
    with mx.stream(mx.cpu):
        wide = matrix.astype(mx.float64)
        norms = mx.maximum(mx.linalg.norm(wide, axis=1), 1e-12)
        normalised = wide / norms[:, None]
        along = normalised.T @ mx.array(unit, dtype=mx.float64)
        projected, squared = normalised @ along, (along * along).sum()
        mx.eval(norms, projected, squared)
    return Rows(np.array(norms), np.array(projected), float(squared.item()))
