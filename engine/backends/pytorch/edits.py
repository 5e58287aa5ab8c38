"""Edits (engine.interventions.edits) as forward hooks of a PyTorch model's modules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from engine.backends.pytorch.heads import causal_model
from engine.interventions.edits import Edit, Rows


def applied(edit: Edit, output: torch.Tensor, strength: float) -> torch.Tensor:
    """The edited output (..., H), computed in float32 at least and given back in the output's own type."""
    wide = output if output.dtype == torch.float64 else output.float()
    u, w, *norms = _placed(edit, wide.device, wide.dtype)
    amount = strength * edit.weight
    edited = wide - amount * (wide @ w).unsqueeze(-1) * u
    if norms:
        a, b = norms
        edited = edited * (1 - 2 * amount * a + amount**2 * b).clamp(min=1e-12).rsqrt()
    return edited.to(output.dtype)


def _placed(edit: Edit, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    key = (device, dtype)
    if key not in edit.placed:
        edit.placed[key] = tuple(
            torch.from_numpy(getattr(edit, name)).to(device=device, dtype=dtype) for name in edit.names()
        )
    return edit.placed[key]


class EditSet:
    """Edits that belong together under one strength dial, hooked onto a model until ``detach``."""

    def __init__(self, model: Any, edits: Sequence[Edit], strength: float = 1.0) -> None:
        self.edits = list(edits)
        self.strength = strength
        self.active = True
        inner = causal_model(model)
        self._handles = [inner.get_submodule(edit.module).register_forward_hook(self._hook(edit)) for edit in edits]

    def _hook(self, edit: Edit) -> Any:
        def after(_module: Any, _inputs: Any, output: Any) -> Any:
            if not self.active or not self.strength * edit.weight:
                return None  # untouched: the model as it is, bit for bit
            if isinstance(output, tuple):
                return (applied(edit, output[0], self.strength), *output[1:])
            return applied(edit, output, self.strength)

        return after

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


def row_products(matrix: torch.Tensor, unit: np.ndarray) -> Rows:
    """Where the matrix (H, in) is, in float64."""
    matrix = matrix.double()
    direction = torch.from_numpy(unit).to(matrix.device)
    norms = matrix.norm(dim=1).clamp(min=1e-12)
    normalised = matrix / norms.unsqueeze(1)
    along = normalised.T @ direction
    return Rows(norms.cpu().numpy(), (normalised @ along).cpu().numpy(), float(along.dot(along)))


def effective_weight(module: Any) -> torch.Tensor:
    """The matrix (out, in) that a linear module applies, dequantized, with its active adapters, in float32."""
    from peft.tuners.lora import LoraLayer
    from peft.utils.integrations import dequantize_module_weight
    from transformers.pytorch_utils import Conv1D

    linear = module.get_base_layer() if isinstance(module, LoraLayer) else module
    weight = dequantize_module_weight(linear).detach().float()
    weight = weight.cpu() if weight.device.type == "mps" else weight  # which has no float64
    if isinstance(linear, Conv1D):
        weight = weight.T
    if isinstance(module, LoraLayer):
        for name in module.active_adapters:
            if name in module.lora_A:
                delta = module.get_delta_weight(name).detach().float().to(weight.device)
                weight = weight + (delta.T if isinstance(linear, Conv1D) else delta)
    return weight
