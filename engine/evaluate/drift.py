"""How far the policy has moved: exact KL on completions that it samples itself, and their length."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from engine.backends.interface import Completion, Conversation, Policy, Which
from engine.evaluate.measurement import Measurement
from engine.evaluate.statistics import Z95

Progress = Callable[[int, int], None] | None


def measure_kl(
    policy: Policy,
    prompts: Sequence[Conversation],
    completions: Sequence[Completion],
    *,
    to: Which,
    name: str,
    progress: Progress = None,
) -> list[Measurement]:
    """KL(policy || ``to``) at the positions of the policy's own samples: per token, and summed per sequence.

    The per-token mean weighs every token alike; its interval comes from the spread between sequences (a ratio
    estimate), since tokens of one completion are not independent. n in sequences, tokens in the detail.
    """
    measured = policy.divergence(prompts, completions, to=to, progress=progress)
    tokens = sum(one.tokens for one in measured)
    if not tokens:
        return []
    total = math.fsum(one.total for one in measured)
    value, n = total / tokens, len(measured)
    spread = math.fsum((one.total - value * one.tokens) ** 2 for one in measured)
    half = Z95 * math.sqrt(spread / max(n - 1, 1) * n) / tokens
    return [
        Measurement(name, value, n, max(0.0, value - half), value + half, {"unit": "sequences", "tokens": tokens}),
        Measurement(f"{name}_sequence", total / n, n, detail={"unit": "nats per sequence"}),
    ]


def mean_length(completions: Sequence[Completion]) -> float:
    """Mean completion length in tokens, the end-of-turn token included."""
    return sum(len(completion.tokens) for completion in completions) / len(completions) if completions else math.nan


def length_ratio(reference_length: float, completions: Sequence[Completion]) -> Measurement:
    """Mean length of the policy's completions over the reference's: boilerplate or truncation must not dilute the KL."""
    length = mean_length(completions)
    return Measurement(
        "length_ratio",
        length / reference_length,
        len(completions),
        detail={"length": length, "before": reference_length},
    )
