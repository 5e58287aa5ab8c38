"""The adapter that a run begins with: the same bits on every backend, from the stage's seed and the modules' names."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def initial_lora_a(seed: int, module: str, rank: int, inputs: int) -> NDArray[np.float32]:
    """The A matrix (rank, inputs) of one module, uniform within 1/sqrt(inputs): PEFT's own distribution (Kaiming with
    a = sqrt 5). B begins as zeros, so that the adapter at first changes nothing.

    ``module`` is the name in the Hugging Face model, such as ``model.layers.0.self_attn.q_proj``. Each has a generator
    of its own: neither the order of the modules nor their number matters.
    """
    digest = hashlib.sha256(f"{seed}/{module}".encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
    bound = 1 / np.sqrt(inputs)
    return (generator.random((rank, inputs)) * (2 * bound) - bound).astype(np.float32)
