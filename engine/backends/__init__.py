"""The training backends. Only the rooms below this one import torch, mlx, transformers, trl or peft."""

from __future__ import annotations

import importlib
import platform
import sys
from importlib.util import find_spec

from engine.backends.interface import Backend

NAMES = ("pytorch", "mlx")
PACKAGES = {"pytorch": "torch", "mlx": "mlx_lm"}
"""What has to be importable for a backend."""


def resolve(name: str) -> str:
    """``auto`` is MLX on Macs with Apple silicon and PyTorch elsewhere."""
    if name != "auto":
        return name
    return "mlx" if (sys.platform, platform.machine()) == ("darwin", "arm64") else "pytorch"


def installed(name: str) -> str:
    """As ``resolve``; where ``auto`` would name a backend whose packages are not here, the other. Imports nothing."""
    found = resolve(name)
    if name == "auto" and find_spec(PACKAGES[found]) is None:
        other = next(one for one in NAMES if one != found)
        return other if find_spec(PACKAGES[other]) is not None else found
    return found


def open_backend(name: str) -> Backend:
    """The backend called ``name``; importing it here and nowhere else keeps torch out of every other process."""
    if name not in NAMES:
        raise ValueError(f"unknown backend {name!r}; this version has: {', '.join(NAMES)}")
    module = importlib.import_module(f"engine.backends.{name}")
    return module.BACKEND
