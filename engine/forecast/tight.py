"""Stages that ran out of memory on this machine, and the micro-batch that they went on with: for the next run.

One JSON file beside the runs. An entry is found by the model, the method, every setting that memory depends on, and
the device; a change of any of them, or removing the file, tries the larger micro-batch again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from engine.runs.directory import home
from engine.runs.files import write_atomically

FILE = "out-of-memory.json"
DEPENDED_ON = (
    "method", "batch_size", "accumulation", "max_length", "training", "adapter", "gradient_checkpointing", "optimizer",
    "group_size", "max_new_tokens", "steps_per_generation", "num_iterations", "kl_weight", "anchors", "padding_free",
    "generation",
)  # fmt: skip


def path() -> Path:
    return home() / FILE


def remembered(recipe: Any, index: int, device: str) -> dict[str, int] | None:
    """Fields of the stage that fitted after the recipe's own did not: ``batch_size``, ``accumulation`` …"""
    found = _read().get(_key(recipe, index, device))
    return found if isinstance(found, dict) and "batch_size" in found else None


def remember(recipe: Any, index: int, device: str, fields: dict[str, int]) -> None:
    kept = {**_read(), _key(recipe, index, device): fields}
    path().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_atomically(path(), json.dumps(kept, indent=1))


def _key(recipe: Any, index: int, device: str) -> str:
    stage = recipe.stages[index].model_dump(mode="json")
    parts = {name: stage[name] for name in DEPENDED_ON if name in stage}
    parts |= {
        name: getattr(recipe, name) for name in ("model", "backend", "quantization", "dtype", "processes", "attention")
    }
    return hashlib.sha256(json.dumps([parts, device], sort_keys=True).encode()).hexdigest()[:24]


def _read() -> dict[str, Any]:
    try:
        found = json.loads(path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
