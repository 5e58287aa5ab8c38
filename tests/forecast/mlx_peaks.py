"""What the forecast says of a step on MLX, and the peak that MLX measured of it: for the test, and for the benchmark's sweep."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from engine.backends import open_backend
from engine.backends.interface import LoadSettings
from engine.forecast.arithmetic import memory
from engine.forecast.model import from_folder
from engine.forecast.settings import Settings
from engine.models.lineage import Base, Lineage
from tests.backends.mlx_models import peak_of_a_step

LENGTH, NEW_TOKENS = 128, 64


def said_and_measured(
    method: str, folder: Path, run: Path, checkpointing: bool, quantization: str = "none", training: str = "lora"
) -> tuple[float, float]:
    """Bytes: the forecast's, and those of the stage's own step on the model in ``folder``."""
    batch = 4 if method in ("sft", "grpo") else 2
    loaded = LoadSettings(quantization, "fp32", training, 8, 16.0, 0.0, "all-linear", checkpointing, 7, False)
    policy = open_backend("mlx").load(Lineage(Base("random", str(folder), None, {})), run, loaded)
    stage = SimpleNamespace(
        steps=10, batch_size=batch, accumulation=1, learning_rate=1e-3, schedule="linear", warmup=0.1, weight_decay=0.0,
        max_grad_norm=1.0, gradient_checkpointing=checkpointing, max_length=LENGTH, beta=0.1, sft_weight=0.0,
        odds_weight=0.1, anchors=SimpleNamespace(share=0.5), kl_coefficient=0.1, kl_target=0.1, max_new_tokens=NEW_TOKENS,
        trust_region=SimpleNamespace(every=1000, slower=0.5), steps_per_generation=None, num_iterations=1, loss="dapo",
        clip=0.2, kl_weight=0.0, temperature=1.0, group_size=4,
    )  # fmt: skip
    measured = peak_of_a_step(method, policy, stage, LENGTH)
    settings = Settings(
        method=method, backend="mlx", loop="stage", dtype="fp32", lora_rank=8, gradient_checkpointing=checkpointing,
        batch_size=batch, length=LENGTH, reference="adapter" if method in ("dpo", "cpo") else "none",
        max_new_tokens=NEW_TOKENS, prompt_length=LENGTH - NEW_TOKENS, anchor_share=0.5 if method == "cpo" else 0.0,
        quantization=quantization, training=training,
    )  # fmt: skip
    return memory(from_folder(folder, "random"), settings).allocated, measured
