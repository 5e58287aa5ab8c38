"""Edits of a model on the outputs of its modules: y' = s * (y - l u (w . y)), exact on adapters and quantized bases.

Nothing is written into a weight: the edit is a forward hook, and leaving it out gives the model back to the byte. Two
forms take a unit direction d of the residual stream out of what a module writes into it:

- plain (Arditi et al. 2024, arXiv:2406.11717, section 2.4): u = w = d, s = 1, the same as projecting the weight,
  W' = (I - l d d^T) W, and the bias with it;
- row-norm preserving: with n the norms of W's rows, the rows of diag(1/n) W are ablated, normalised again and scaled
  back by n. On the output that is u = n * d, w = d / n and s_i = (1 - 2 l a_i + l^2 b_i)^(-1/2), where
  a_i = d_i (W_n W_n^T d)_i and b_i = d_i^2 |W_n^T d|^2: with those two kept, the form is exact at every strength.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from engine.backends.pytorch.heads import causal_model

Form = Literal["plain", "norm"]
TENSORS = ("u", "w", "a", "b")


@dataclass(frozen=True)
class Edit:
    """One module's edit. ``weight`` is l at strength 1; the four tensors are float32 of the module's width."""

    module: str
    """Name below the causal model, such as ``model.layers.3.mlp.down_proj``."""
    weight: float
    u: torch.Tensor
    w: torch.Tensor
    a: torch.Tensor
    b: torch.Tensor
    placed: dict[Any, tuple[torch.Tensor, ...]] = field(default_factory=dict, compare=False, repr=False)
    """The tensors where they were needed, so that no forward pass copies them again."""

    def _on(self, device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
        """``(u, w)``, and ``(u, w, a, b)`` where rows keep their norms."""
        if (device, dtype) not in self.placed:
            names = TENSORS if bool(self.a.any()) else TENSORS[:2]
            self.placed[device, dtype] = tuple(getattr(self, name).to(device=device, dtype=dtype) for name in names)
        return self.placed[device, dtype]

    def applied(self, output: torch.Tensor, strength: float) -> torch.Tensor:
        """The edited output (..., H), computed in float32 at least and given back in the output's own type."""
        wide = output if output.dtype == torch.float64 else output.float()
        u, w, *norms = self._on(wide.device, wide.dtype)
        amount = strength * self.weight
        edited = wide - amount * (wide @ w).unsqueeze(-1) * u
        if norms:
            a, b = norms
            edited = edited * (1 - 2 * amount * a + amount**2 * b).clamp(min=1e-12).rsqrt()
        return edited.to(output.dtype)


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
                return (edit.applied(output[0], self.strength), *output[1:])
            return edit.applied(output, self.strength)

        return after

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []


def plain_edit(module: str, direction: torch.Tensor, weight: float) -> Edit:
    """Project ``direction`` (H,) out of a module's output; a weight of 1 removes it whole."""
    unit = (direction.double() / direction.double().norm()).float()
    nothing = torch.zeros_like(unit)
    return Edit(module, weight, unit, unit, nothing, nothing)


def norm_edit(module: str, direction: torch.Tensor, weight: float, matrix: torch.Tensor) -> Edit:
    """The same with the row norms of the module's effective ``matrix`` (H, in) kept. Worked out in float64."""
    unit = direction.double() / direction.double().norm()
    matrix = matrix.double()
    unit = unit.to(matrix.device)
    norms = matrix.norm(dim=1).clamp(min=1e-12)
    normalised = matrix / norms.unsqueeze(1)
    along = normalised.T @ unit
    a, b = unit * (normalised @ along), unit**2 * along.dot(along)
    return Edit(module, weight, *(tensor.float().cpu() for tensor in (norms * unit, unit / norms, a, b)))


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


def save_edits(edits: Sequence[Edit], path: Path, about: dict[str, str]) -> None:
    """One safetensors file; names, weights and what the edits belong to are one JSON text in its metadata (of several
    keys safetensors would shuffle the order, and with it the file's hash)."""
    tensors = {f"{place}.{name}": getattr(edit, name).clone() for place, edit in enumerate(edits) for name in TENSORS}
    facts = {**about, "edits": [{"module": edit.module, "weight": edit.weight} for edit in edits]}
    save_file(tensors, path, metadata={"finetune-tui": json.dumps(facts)})


def load_edits(path: Path) -> list[Edit]:
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["finetune-tui"])
        return [
            Edit(one["module"], one["weight"], *(file.get_tensor(f"{place}.{name}") for name in TENSORS))
            for place, one in enumerate(facts["edits"])
        ]
