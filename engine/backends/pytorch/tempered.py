"""Log-probabilities of tokens at many temperatures from one forward (Guo et al. 2017, section 4.2: temperature scaling)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

AT_ONCE = 2**18
"""Logits that are scaled at a time: they stay in a core's cache, and no temperature asks for fresh memory."""


def tempered(logits: torch.Tensor, targets: torch.Tensor, temperatures: Sequence[float]) -> torch.Tensor:
    """In nats, (T, M) in fp32, from logits (M, V) and the tokens (M,) that were chosen."""
    found = torch.empty((len(temperatures), len(targets)), device=logits.device)
    rows = max(1, AT_ONCE // logits.shape[-1])
    for start in range(0, len(targets), rows):
        part = logits[start : start + rows].float()
        chosen = part.gather(-1, targets[start : start + rows].unsqueeze(-1)).squeeze(-1)
        scaled = torch.empty_like(part)
        for place, temperature in enumerate(temperatures):
            torch.div(part, temperature, out=scaled)
            found[place, start : start + rows] = chosen / temperature - torch.logsumexp(scaled, dim=-1)
    return found
