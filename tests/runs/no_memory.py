"""A trainer that runs out of memory: what a stage of tests/warm.py is told to do first."""

from __future__ import annotations

import os


def inject() -> None:
    """From step FROM_STEP on, a micro-batch of more than MOST_ROWS rows raises what PyTorch raises."""
    import torch

    from engine.backends.pytorch.training import LinkedTrainer

    step = LinkedTrainer.training_step

    def training_step(self, model, inputs, *rest, **named):
        rows = inputs["input_ids"].shape[0]
        if rows > int(os.environ["MOST_ROWS"]) and self.state.global_step >= int(os.environ["FROM_STEP"]):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return step(self, model, inputs, *rest, **named)

    LinkedTrainer.training_step = training_step
