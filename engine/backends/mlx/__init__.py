"""The MLX backend: models, LoRA layers, quantization and caches from mlx-lm; the training loop is our own."""

from __future__ import annotations

import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.backends.interface import LoadSettings, TrainingLink
from engine.models.lineage import Lineage


class MLXBackend:
    name = "mlx"

    def versions(self) -> dict[str, str]:
        return {package: version(package) for package in ("mlx", "mlx-lm", "transformers")}

    def load(self, lineage: Lineage, run_folder: Path, settings: LoadSettings) -> Any:
        from engine.backends.mlx.load import load_policy

        return load_policy(lineage, run_folder, settings)

    def train(self, method: str, policy: Any, rows: Any, stage: Any, link: TrainingLink) -> None:
        module = importlib.import_module(f"engine.backends.mlx.{method}")
        module.train(policy, rows, stage, link)

    def bench(self, method: str, policy: Any) -> Any:
        module = importlib.import_module(f"engine.backends.mlx.{method}")
        return module.Bench(policy)

    def save_output(self, policy: Any, folder: Path) -> None:
        policy.save(folder)


BACKEND = MLXBackend()
