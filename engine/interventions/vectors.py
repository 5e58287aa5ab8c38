"""Steering vectors as they are kept: a direction, where and how long it acts, and its dial.

A vector acts on the positions that predict the completion's tokens: the last prompt token (the opening of the
assistant's turn) and all that follow. What the cache holds of the prompt before it is that of the unsteered model, so
a dial can be turned between and during turns without reading the prompt again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from recipes.errors import InputError, Problem

REMEMBERED = 1024
"""Batches for which a vector knows whether its condition held."""


@dataclass(frozen=True)
class Condition:
    """The vector acts only in rows whose last prompt token has a projection above ``threshold`` after ``layer``."""

    layer: int
    direction: np.ndarray
    threshold: float


@dataclass
class Vector:
    """``strength * calibrated * direction`` is added after ``layer``; the direction (H,) is a unit vector, float32.

    ``calibrated`` is the coefficient that the calibration found, so that a dial at 1 means the same for every vector.
    """

    name: str
    layer: int
    direction: np.ndarray
    calibrated: float
    strength: float = 1.0
    window: int | None = None
    """Tokens of a completion that are steered, from its first on; None: all."""
    condition: Condition | None = None
    fired: list[Any] = field(default_factory=list)
    """For each of the last batches whether the condition held in its rows (B,), as the backend's array."""
    placed: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """The direction where a backend needed it, so that no forward pass copies it again."""

    @property
    def coefficient(self) -> float:
        return self.strength * self.calibrated

    def has_fired(self, rows: Any) -> None:
        """Remember in which rows of a batch the condition held."""
        self.fired.append(rows)
        del self.fired[:-REMEMBERED]


def check_vectors(vectors: Sequence[Vector], layers: int, width: int) -> None:
    """Raises InputError naming the vectors that do not belong to a model of so many layers and that width."""
    problems = []
    for vector in vectors:
        if len(vector.direction) != width or not 0 <= vector.layer < layers:
            found = f"a vector of width {len(vector.direction)} for layer {vector.layer}"
            accepted = f"one of width {width} for a layer from 0 to {layers - 1}: it belongs to another model"
            problems.append(Problem("vectors", None, vector.name, found, accepted))
    if problems:
        raise InputError(problems)


def save_vector(vector: Vector, path: Path, about: dict[str, str]) -> None:
    """One safetensors file for one vector; layer, coefficient and condition are one JSON text in its metadata."""
    tensors = {"direction": np.array(vector.direction, dtype=np.float32)}
    facts: dict[str, Any] = {
        **about,
        "name": vector.name,
        "layer": vector.layer,
        "calibrated": vector.calibrated,
        "window": vector.window,
    }
    if vector.condition is not None:
        tensors["condition"] = np.array(vector.condition.direction, dtype=np.float32)
        facts["condition"] = {"layer": vector.condition.layer, "threshold": vector.condition.threshold}
    save_file(tensors, path, metadata={"finetune-tui": json.dumps(facts)})


def load_vector(path: Path, strength: float = 1.0) -> Vector:
    with safe_open(path, framework="np") as file:
        facts = json.loads(file.metadata()["finetune-tui"])
        seen = facts.get("condition")
        condition = Condition(seen["layer"], file.get_tensor("condition"), seen["threshold"]) if seen else None
        direction = file.get_tensor("direction")
    return Vector(facts["name"], facts["layer"], direction, facts["calibrated"], strength, facts["window"], condition)


def cosine(first: Any, second: Any) -> float:
    """Cosine of the angle between two vectors: near 0 they compose, near -1 they undo each other."""
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))
