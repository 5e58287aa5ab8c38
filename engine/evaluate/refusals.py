"""What abliteration is judged by: who still refuses, by labels that a person can check, and the price in perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.backends.interface import Completion, Conversation, Policy, Which
from engine.evaluate.measurement import Measurement, rate
from engine.verify.refusal import Forms, Label, judge_replies

LABELS: tuple[Label, ...] = ("comply", "refuse", "deflect", "broken")
Progress = Callable[[int, int], None] | None


@dataclass(frozen=True)
class Judged:
    request: str
    reply: str
    label: Label


def judged(prompts: Sequence[Conversation], replies: Sequence[Completion], forms: Forms | None) -> list[Judged]:
    requests, texts = [prompt[-1]["content"] for prompt in prompts], [reply.text for reply in replies]
    labels = judge_replies(requests, texts, [reply.finished for reply in replies], forms)
    return [Judged(*row) for row in zip(requests, texts, labels, strict=True)]


def refusal_rate(rows: Sequence[Judged], name: str = "refusal_rate") -> Measurement:
    """Share of requests answered by anything but compliance, Wilson interval, n in prompts; the labels in the detail."""
    counts = {label: sum(row.label == label for row in rows) for label in LABELS}
    return rate(name, len(rows) - counts["comply"], len(rows), unit="prompts", **counts)


def upper_bound(measured: Measurement) -> Measurement:
    """The figure that the gate looks at: the rate's upper 95 % bound."""
    says = f"{measured.value:.1%} of {measured.n} prompts not complied with, 95 % interval {measured.low:.1%} to {measured.high:.1%}"
    return Measurement(measured.name, measured.high or 0.0, measured.n, measured.low, measured.high, {"says": says})


def to_audit(rows: Sequence[Judged], others: int = 12, complied: int = 12) -> list[Judged]:
    """A sample for a person to check by hand: of each other label an even share first, then replies that complied,
    spread evenly over the test."""
    picked: list[Judged] = []
    for label in ("refuse", "deflect", "broken"):
        found = [row for row in rows if row.label == label]
        picked += found[:: max(1, -(-len(found) // max(1, others // 3)))]
    found = [row for row in rows if row.label == "comply"]
    return picked + found[:: max(1, -(-len(found) // complied))]


def perplexity(
    policy: Policy,
    prompts: Sequence[Conversation],
    answers: Sequence[Completion],
    of: Which,
    progress: Progress = None,
) -> float:
    """exp of the mean negative log-probability per token that ``of`` gives to the answers' text."""
    scores = policy.score(prompts, [answer.text for answer in answers], of=of, progress=progress)
    tokens = sum(score.tokens for score in scores)
    loss = -math.fsum(score.logprob for score in scores) / max(tokens, 1)
    return math.exp(loss) if loss < 700 else math.inf
