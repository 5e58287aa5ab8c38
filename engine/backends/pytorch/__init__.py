"""The PyTorch backend: models from transformers, adapters from PEFT, trainers from TRL."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.backends.interface import LoadSettings, TrainingLink
from engine.backends.sparing import leave_out_bitsandbytes, without_collecting
from engine.models.lineage import Lineage


class PyTorchBackend:
    name = "pytorch"

    def __init__(self) -> None:
        self._alone = False

    def versions(self) -> dict[str, str]:
        packages = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes")
        return {package: version(package) for package in packages}

    def alone(self, settings: LoadSettings, optimizer: str, model: Path | None) -> None:
        self._alone = True
        leave_out_bitsandbytes(settings.quantization, optimizer, model)

    def load(self, lineage: Lineage, run_folder: Path, settings: LoadSettings) -> Any:
        with without_collecting(self._alone):
            from engine.backends.pytorch.load import load_policy

        return load_policy(lineage, run_folder, settings)

    def train(self, method: str, policy: Any, rows: Any, stage: Any, link: TrainingLink) -> None:
        with without_collecting(self._alone):
            module = importlib.import_module(f"engine.backends.pytorch.{method}")
            from engine.backends.pytorch.speedups import told
        for line in told(policy, stage):
            print(line, flush=True)  # into the stage's log
        module.train(policy, rows, stage, link)

    def bench(self, method: str, policy: Any) -> Any:
        module = importlib.import_module(f"engine.backends.pytorch.{method}")
        return module.Bench(policy)

    def voices(self, lineages: Mapping[str, Lineage], run_folder: Path, settings: LoadSettings) -> dict[str, Any]:
        with without_collecting():
            from engine.backends.pytorch.chat import load_voices

        return dict(load_voices(lineages, run_folder, settings))

    def save_output(self, policy: Any, folder: Path) -> None:
        policy.save(folder)


BACKEND = PyTorchBackend()
