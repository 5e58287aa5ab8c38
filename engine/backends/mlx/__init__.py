"""The MLX backend: models, LoRA layers, quantization and caches from mlx-lm; the training loop is our own."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.backends.interface import LoadSettings, TrainingLink
from engine.models.lineage import Lineage
from recipes.errors import InputError, Problem


class MLXBackend:
    name = "mlx"

    def versions(self) -> dict[str, str]:
        return {package: version(package) for package in ("mlx", "mlx-lm", "transformers")}

    def alone(self, settings: LoadSettings, optimizer: str, model: Path | None) -> None:
        """transformers imports torch wherever it is installed: 250 MiB and seconds for nothing that MLX uses."""
        if "torch" not in sys.modules:
            os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # it would advise to install torch
            sys.modules["torch"] = None  # type: ignore[assignment]  # as if it were not installed
            try:
                from transformers.utils import is_torch_available

                is_torch_available()  # remembered from here on
            finally:
                del sys.modules["torch"]  # whoever asks for it by name may have it

    def load(self, lineage: Lineage, run_folder: Path, settings: LoadSettings) -> Any:
        from engine.backends.mlx.load import load_policy

        return load_policy(lineage, run_folder, settings)

    def train(self, method: str, policy: Any, rows: Any, stage: Any, link: TrainingLink) -> None:
        from engine.backends.mlx.lacks import check_processes, check_stage

        check_stage(stage)
        check_processes(method)
        module = _module(method)
        module.train(policy, rows, stage, link)

    def bench(self, method: str, policy: Any) -> Any:
        module = _module(method)
        return module.Bench(policy)

    def voices(self, lineages: Mapping[str, Lineage], run_folder: Path, settings: LoadSettings) -> dict[str, Any]:
        from engine.backends.mlx.chat import load_voices

        return dict(load_voices(lineages, run_folder, settings))

    def save_output(self, policy: Any, folder: Path) -> None:
        policy.save(folder)


def _module(method: str) -> Any:
    """Raises InputError for a method that this backend does not have yet."""
    name = f"engine.backends.mlx.{method}"
    if importlib.util.find_spec(name) is None:
        accepted = "`backend: pytorch` for this stage; the stages before and after it may stay on MLX"
        raise InputError(
            [Problem("recipe", None, "backend", f"`mlx` for {method}, which it does not have yet", accepted)]
        )
    return importlib.import_module(name)


BACKEND = MLXBackend()
