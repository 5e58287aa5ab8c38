"""What the preference trainers share: their rows for TRL, and the divergence gauge from hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset

KL_TOKENS = 256
"""Positions of each micro-batch whose exact KL the live gauge averages."""


def preference_dataset(rows: Sequence[Any]) -> Dataset:
    """Preference rows (engine.data.formats.Preference) as TRL's conversational pairs."""
    return Dataset.from_list(
        [
            {
                "prompt": list(row.prompt),
                "chosen": [{"role": "assistant", "content": row.chosen}],
                "rejected": [{"role": "assistant", "content": row.rejected}],
            }
            for row in rows
        ]
    )


def tell_divergence(metrics: Any, kl: float, completion_mask: torch.Tensor) -> None:
    """Add a reading of the gauge: per token, and summed over a completion of mean length."""
    length = completion_mask.sum().item() / completion_mask.shape[0]
    metrics["kl"].append(kl)
    metrics["kl_sequence"].append(kl * length)
