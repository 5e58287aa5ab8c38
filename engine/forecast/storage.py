"""Disk for the download, the checkpoints, what a stage hands on and an export; RAM for merging and for checking it."""

from __future__ import annotations

from typing import Any

from engine.forecast.arithmetic import trainable, trainable_bytes
from engine.forecast.model import ModelFacts
from engine.forecast.settings import Settings

MIB = 2**20
MERGED_AT_ONCE = 12
"""Bytes of RAM for an element of the tensor that is merged: as stored, in fp32, with the adapter, and cast
(``engine.backends.pytorch.export_merge``, which holds one tensor at a time)."""
LIBRARIES = 1.2 * 2**30
"""Of a process with torch and transformers loaded (``engine.export.plan``)."""


def storage(model: ModelFacts, settings: Settings) -> dict[str, Any]:
    """MiB. A checkpoint holds the trained weights and the optimizer's states; one more than is kept exists while saving.

    An export in 16 bit is loaded once more, whole, to be compared with the run; merging itself holds one tensor.
    """
    count = trainable(model, settings) if settings.trains else 0
    weights = count * trainable_bytes(settings)
    states = 2 * count * trainable_bytes(settings) if settings.optimizer == "adamw" else 2 * count
    largest = max([model.vocabulary * model.hidden, *(linear.size for linear in model.linears())])
    download = model.disk_bytes or model.parameters * 2
    return {
        "download_mib": round(download / MIB, 1),
        "checkpoint_mib": round((weights + states) / MIB, 1),
        "checkpoints_mib": round((weights + states) * (settings.checkpoint_keep + 1) / MIB, 1),
        "output_mib": round(weights / MIB, 1),
        "export_mib": round(model.parameters * 2 / MIB, 1),
        "merge_ram_mib": round((LIBRARIES + MERGED_AT_ONCE * largest) / MIB, 1),
        "export_ram_mib": round((LIBRARIES + 2 * model.parameters) / MIB, 1),
    }
