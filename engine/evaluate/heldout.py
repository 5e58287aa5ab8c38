"""What SFT is judged by: held-out loss, perplexity and accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from engine.backends.interface import Completion, Conversation, Policy, Score
from engine.evaluate.measurement import Measurement, rate
from engine.verify.answers import matches

Progress = Callable[[int, int], None] | None


def heldout_loss(
    policy: Policy, prompts: Sequence[Conversation], completions: Sequence[str], progress: Progress = None
) -> list[Measurement]:
    """Mean negative log-probability per completion token in nats, its exp, and the teacher-forced token accuracy."""
    scores = policy.score(prompts, completions, progress=progress)
    tokens = sum(score.tokens for score in scores)
    loss = -math.fsum(score.logprob for score in scores) / tokens if tokens else math.nan
    return [
        Measurement("heldout_loss", loss, len(scores), detail={"unit": "rows", "tokens": tokens}),
        Measurement("perplexity", math.exp(loss) if loss < 700 else math.inf, len(scores), detail={"tokens": tokens}),
        token_accuracy(scores),
    ]


def token_accuracy(scores: Sequence[Score]) -> Measurement:
    """Share of completion tokens that greedy decoding would have chosen, n in tokens."""
    return rate(
        "token_accuracy", sum(score.correct for score in scores), sum(score.tokens for score in scores), unit="tokens"
    )


def accuracy(answers: Sequence[str], completions: Sequence[Completion]) -> Measurement:
    """Share of greedy completions that are exactly the answer (engine/verify/answers.py), n in rows."""
    right = sum(
        completion.finished and matches(completion.text, answer)
        for answer, completion in zip(answers, completions, strict=True)
    )
    return rate("accuracy", right, len(answers), unit="rows")
