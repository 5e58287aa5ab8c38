"""The forecast's MLX tier over the peak that MLX measured, on the CPU: five methods with and without checkpointing, on three
models of random weights, fp32, not compiled."""

from __future__ import annotations

import tempfile
from pathlib import Path

import mlx.core as mx

from tests.backends.mlx_models import random_model
from tests.forecast.mlx_peaks import said_and_measured

SHAPES = {
    "64 wide, 1024 words": {
        "hidden_size": 64, "intermediate_size": 176, "num_hidden_layers": 5, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 1024,
    },
    "256 wide, 4096 words": {
        "hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "num_attention_heads": 8,
        "num_key_value_heads": 8, "vocab_size": 4096,
    },
    "128 wide, 32 768 words": {
        "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 8, "num_attention_heads": 4,
        "num_key_value_heads": 1, "vocab_size": 32_768,
    },
}  # fmt: skip
METHODS = ("sft", "dpo", "orpo", "cpo", "grpo")


def rows() -> list[str]:
    mx.disable_compile()
    lines, every = [], []
    with tempfile.TemporaryDirectory() as home:
        folders = {name: random_model(Path(home) / str(at), **shape) for at, (name, shape) in enumerate(SHAPES.items())}
        for method in METHODS:
            ratios = []
            for folder in folders.values():
                for checkpointing in (False, True):
                    said, measured = said_and_measured(method, folder, Path(home), checkpointing)
                    ratios.append(said / measured)
            every += ratios
            told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            lines.append(f"| MLX memory of {method}, said over measured, without and with checkpointing: {told} | | |")
    lines.append(
        f"| MLX memory, said over measured | {min(every):.2f} to {max(every):.2f}, n {len(every)} | as they come |"
    )
    return lines
