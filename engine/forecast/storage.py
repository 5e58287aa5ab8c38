"""Disk for the download, the checkpoints and what a stage hands on; RAM for merging."""

from __future__ import annotations

from typing import Any

from engine.forecast.arithmetic import trainable, trainable_bytes
from engine.forecast.model import ModelFacts
from engine.forecast.settings import Settings

MIB = 2**20


def storage(model: ModelFacts, settings: Settings) -> dict[str, Any]:
    """MiB. A checkpoint holds the trained weights and the optimizer's states; one more than is kept exists while saving.

    Merging loads the base in 16 bit beside one shard being written.
    """
    count = trainable(model, settings) if settings.trains else 0
    weights = count * trainable_bytes(settings)
    states = 2 * count * trainable_bytes(settings) if settings.optimizer == "adamw" else 2 * count
    download = model.disk_bytes or model.parameters * 2
    return {
        "download_mib": round(download / MIB, 1),
        "checkpoint_mib": round((weights + states) / MIB, 1),
        "checkpoints_mib": round((weights + states) * (settings.checkpoint_keep + 1) / MIB, 1),
        "output_mib": round(weights / MIB, 1),
        "merge_ram_mib": round(model.parameters * 2 / MIB, 1),
    }
