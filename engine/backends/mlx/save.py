"""Write a fully fine-tuned model in Hugging Face form, so that either backend carries it on."""

from __future__ import annotations

import shutil
from pathlib import Path

import mlx.core as mx

from engine.backends.mlx.network import Weights
from recipes.errors import InputError, Problem

LEFT_OUT = (".safetensors", ".safetensors.index.json", ".bin")


def save_model(target: Path, base: Path, weights: Weights) -> None:
    """The base's files with these weights in place of its own, under the same names.

    Raises InputError for the architectures whose weights mlx-lm renames on load: a file with its names would be read
    by nothing else.
    """
    known = {name for path in base.glob("*.safetensors") for name in mx.load(str(path))}
    renamed = sorted(name for name in weights if name not in known)
    if renamed:
        accepted = "`training: lora`, or full fine-tuning with `--set backend=pytorch`"
        found = f"an architecture that mlx-lm holds under names of its own (`{renamed[0]}`)"
        raise InputError([Problem(str(base), None, "training", found, accepted)])
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(base.iterdir()):
        if path.is_file() and not path.name.endswith(LEFT_OUT) and not path.name.startswith("."):
            shutil.copy(path, target / path.name)
    mx.save_safetensors(str(target / "model.safetensors"), weights, metadata={"format": "pt"})
