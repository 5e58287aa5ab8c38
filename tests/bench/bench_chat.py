"""What steering costs a chat: time per token of a reply with two dials turned against the same reply with both at 0.

CPU time of both sides, alternating in one run; the end of the turn is ignored so that both write as many tokens.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import numpy as np
import torch

from engine.backends import open_backend
from engine.backends.interface import LoadSettings, Sampling
from engine.interventions.vectors import Vector, save_vector
from engine.models.lineage import Base, Lineage
from recipes.resources import resolve_model
from tests.bench.bench_edits import compared, row

TOKENS = 48


def rows() -> list[str]:
    torch.set_num_threads(1)
    settings = LoadSettings("none", "fp32", "none", 8, 16.0, 0.0, "all-linear", False, 0, False)
    with tempfile.TemporaryDirectory() as folder:
        entries = []
        for seed in (1, 2):
            path = Path(folder) / f"v{seed}.safetensors"
            draw = np.random.default_rng(seed).standard_normal(256)
            save_vector(Vector(f"v{seed}", 2, (draw / np.linalg.norm(draw)).astype(np.float32), 1.0), path, {})
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            entries.append({"method": "steering", "path": path.name, "sha256": digest, "strength": 0.0})
        base = Base("lab", str(resolve_model("lab", Path("."))), None, {})
        lineage = Lineage(base, vectors=entries)
        voice = open_backend("pytorch").voices({"lab": lineage}, Path(folder), settings)["lab"]
        voice.stops = set()  # type: ignore[attr-defined]
        asked = [{"role": "user", "content": "Tell me about the harbor."}]

        def speak(strength: float) -> None:
            for dial in voice.dials():
                voice.dial(dial.name, strength)
            sampling = Sampling(temperature=0.0, max_new_tokens=TOKENS)
            assert sum(1 for _ in voice.stream(asked, sampling)) == TOKENS

        ratios = compared(lambda: speak(1.0), lambda: speak(0.0))
    return [row("a chat's reply with two dials turned against none, time per token", ratios, "≤ 1.05")]
