"""In which order rows are trained on: the one of transformers' Trainer, so that backends see the same batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def epoch_order(rows: int, seed: int, epoch: int) -> list[int]:
    """Row indices of one epoch: ``torch.randperm`` of a CPU generator seeded with seed + epoch (accelerate's
    SeedableRandomSampler), worked out without torch. Both draw from the same Mersenne Twister; tested against it."""
    twister = np.random.MT19937()
    twister._legacy_seeding((seed + epoch) % 2**32)  # type: ignore[attr-defined]  # as torch seeds its own
    draws = twister.random_raw(max(0, rows - 1))
    order = list(range(rows))
    for place, draw in enumerate(draws):
        other = place + int(draw) % (rows - place)
        order[place], order[other] = order[other], order[place]
    return order


def steps_from(step: int, rows: int, batch_size: int, accumulation: int, seed: int) -> Iterator[list[list[int]]]:
    """The micro-batches of every step after ``step``, without end, each a list of row indices.

    As the Trainer has it: an epoch's last micro-batch may be smaller, and its last step may have fewer of them.
    """
    micro = -(-rows // batch_size)
    per_epoch = -(-micro // accumulation)
    while True:
        epoch, place = divmod(step, per_epoch)
        order = epoch_order(rows, seed, epoch)
        for within in range(place, per_epoch):
            first = within * accumulation
            yield [
                order[number * batch_size : (number + 1) * batch_size]
                for number in range(first, min(first + accumulation, micro))
            ]
            step += 1
