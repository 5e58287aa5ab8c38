"""Edits of a model on the outputs of its modules: y' = s * (y - l u (w . y)), exact on adapters and quantized bases.

Nothing is written into a weight: a backend hooks the edit onto the module, and leaving it out gives the model back to
the byte. Two forms take a unit direction d of the residual stream out of what a module writes into it:

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
from typing import Any, Literal, NamedTuple

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

Form = Literal["plain", "norm"]
TENSORS = ("u", "w", "a", "b")


@dataclass(frozen=True)
class Edit:
    """One module's edit. ``weight`` is l at strength 1; the four arrays are float32 of the module's width."""

    module: str
    """Name below the causal model in Hugging Face's words, such as ``model.layers.3.mlp.down_proj``."""
    weight: float
    u: np.ndarray
    w: np.ndarray
    a: np.ndarray
    b: np.ndarray
    placed: dict[Any, tuple[Any, ...]] = field(default_factory=dict, compare=False, repr=False)
    """The arrays where a backend needed them, so that no forward pass copies them again."""

    def names(self) -> tuple[str, ...]:
        """The arrays that say something: ``u, w``, and all four where rows keep their norms."""
        return TENSORS if bool(self.a.any()) else TENSORS[:2]


class Rows(NamedTuple):
    """What the row-norm preserving form asks of a module's matrix W (H, in) for a unit direction d (H,), in float64."""

    norms: np.ndarray
    """|W_i| of each row (H,), at least 1e-12."""
    projected: np.ndarray
    """W_n W_n^T d (H,), with W_n the rows divided by their norms."""
    squared: float
    """|W_n^T d|^2."""


def plain_edit(module: str, direction: Any, weight: float) -> Edit:
    """Project ``direction`` (H,) out of a module's output; a weight of 1 removes it whole."""
    unit = unit_of(direction).astype(np.float32)
    nothing = np.zeros_like(unit)
    return Edit(module, weight, unit, unit, nothing, nothing)


def norm_edit(module: str, direction: Any, weight: float, rows: Rows) -> Edit:
    """The same with the row norms of the module's effective matrix kept. Worked out in float64."""
    unit = unit_of(direction)
    a, b = unit * rows.projected, unit**2 * rows.squared
    kept = [one.astype(np.float32) for one in (rows.norms * unit, unit / rows.norms, a, b)]
    return Edit(module, weight, kept[0], kept[1], kept[2], kept[3])


def unit_of(direction: Any) -> np.ndarray:
    """Of length one, float64."""
    wide = np.asarray(direction, dtype=np.float64)
    return wide / np.linalg.norm(wide)


def save_edits(edits: Sequence[Edit], path: Path, about: dict[str, str]) -> None:
    """One safetensors file; names, weights and what the edits belong to are one JSON text in its metadata (of several
    keys safetensors would shuffle the order, and with it the file's hash)."""
    tensors = {f"{place}.{name}": getattr(edit, name) for place, edit in enumerate(edits) for name in TENSORS}
    facts = {**about, "edits": [{"module": edit.module, "weight": edit.weight} for edit in edits]}
    save_file(tensors, path, metadata={"finetune-tui": json.dumps(facts)})


def load_edits(path: Path) -> list[Edit]:
    with safe_open(path, framework="np") as file:
        facts = json.loads(file.metadata()["finetune-tui"])
        return [
            Edit(one["module"], one["weight"], *(file.get_tensor(f"{place}.{name}") for name in TENSORS))
            for place, one in enumerate(facts["edits"])
        ]
