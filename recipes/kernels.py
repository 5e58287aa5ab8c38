"""Attention kernels and the settings that need one of some kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recipes.errors import Problem


def kernel_conflicts(
    stages: Sequence[Any], attention: str, where: str, lines: Mapping[tuple[str | int, ...], int]
) -> list[Problem]:
    """The eager kernel works on all rows at once under one mask: rows without padding are not for it."""
    return [
        Problem(
            where,
            lines.get(("stages", index, "padding_free")),
            f"stages.{index}.padding_free",
            "`true` with `attention: eager`, which cannot keep rows apart",
            "`false`, or `attention: auto`",
        )
        for index, stage in enumerate(stages)
        if attention == "eager" and getattr(stage, "padding_free", False)
    ]
