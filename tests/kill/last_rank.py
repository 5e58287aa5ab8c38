"""A rank that is killed after given steps, each once: where a run is interrupted decides what it has to take back."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def dies_after() -> None:
    """What a stage of tests/warm.py is told to do first: its last rank dies after the steps of DIE_AFTER ("4 11")."""
    from engine.stages.link import StageLink

    after_step = StageLink.after_step

    def dying(self: StageLink, step: int, total: int) -> None:
        after_step(self, step, total)
        died = Path(f"died-after-{step}")  # a stage works in its run's folder
        last = int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1
        if last and str(step) in os.environ["DIE_AFTER"].split() and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    StageLink.after_step = dying  # type: ignore[method-assign]
