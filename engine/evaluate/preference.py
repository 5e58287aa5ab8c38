"""What a preference stage is judged by: the gap between chosen and rejected, and what the policy really writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from engine.backends.interface import Completion, Conversation, Policy
from engine.evaluate.measurement import Measurement, mean, rate
from engine.verify.judge import Judge

GAP_BETA = 0.1
"""The gap is always scaled with this, whatever a stage trains with, so that DPO, ORPO and CPO compare."""

Progress = Callable[[int, int], None] | None


def log_ratios(
    policy: Policy,
    prompts: Sequence[Conversation],
    chosen: Sequence[str],
    rejected: Sequence[str],
    start: Sequence[tuple[float, float]],
    progress: Progress = None,
) -> list[float]:
    """(log pi - log pi_start)(chosen) - (log pi - log pi_start)(rejected) per pair, token sums, in nats."""
    chosen_now = policy.score(prompts, chosen, progress=progress)
    rejected_now = policy.score(prompts, rejected, progress=progress)
    return [
        (good.logprob - good_start) - (bad.logprob - bad_start)
        for good, bad, (good_start, bad_start) in zip(chosen_now, rejected_now, start, strict=True)
    ]


def preference_gap(ratios: Sequence[float]) -> list[Measurement]:
    """Held-out mean of beta times the log-ratio difference, and the share of pairs ranked right by it; n in pairs."""
    return [
        mean("preference_gap", [GAP_BETA * ratio for ratio in ratios], unit="pairs", beta=GAP_BETA),
        rate("preference_accuracy", sum(ratio > 0 for ratio in ratios), len(ratios), unit="pairs"),
    ]


def preferred_share(judge: Judge, completions: Sequence[Completion]) -> list[Measurement]:
    """Shares of sampled completions that show the preferred behaviour and that are broken; n in completions."""
    verdicts = judge.verdicts([one.text for one in completions], [one.finished for one in completions])
    return [
        rate("preferred_share", verdicts.count("preferred"), len(verdicts), unit="completions"),
        rate("broken_share", verdicts.count("broken"), len(verdicts), unit="completions"),
    ]
