"""What the chat's screen says, as plain data: no Textual in here."""

from __future__ import annotations

from collections.abc import Sequence

from engine.chat.messages import Done, Spoken

OPPOSED = -0.5
"""Cosine below which two vectors are said to undo each other, as the steering stage does."""
LEVELS = {"kl": (0.05, 0.5), "logprob": (0.7, 2.3)}
"""From where on a token is marked, and marked strongly: nats of divergence, or of surprise."""


def mark(gauge: str, token: Spoken) -> int:
    """0 for a token that is nothing special, 1 for one that stands out, 2 for one that does strongly."""
    value = {"kl": token.kl, "logprob": -token.logprob}.get(gauge)
    if value is None:
        return 0
    low, high = LEVELS[gauge]
    return 2 if value >= high else 1 if value >= low else 0


def reply_words(done: Done) -> str:
    """``28 tokens, 31 a second, KL 0.196, sure 87 %``."""
    words = [f"{done.tokens} tokens"]
    if done.seconds > 0:
        words.append(f"{done.tokens / done.seconds:.0f} a second")
    if done.kl is not None:
        words.append(f"KL {done.kl:.3f}")
    if done.confidence is not None:
        words.append(f"confidence {done.confidence:.0%}")
    words += {"length": ["cut off"], "stopped": ["stopped"], "end": []}[done.ending]
    return ", ".join(words)


def angle_words(cosines: Sequence[tuple[str, str, float]], acting: Sequence[str]) -> str:
    """The cosines, those in conflict first: ``warm × formal -1.00 undo each other``."""
    parts = []
    for first, second, cosine in sorted(cosines, key=lambda one: one[2]):
        words = f"{first} × {second} {cosine:+.2f}"
        if cosine < OPPOSED:
            words += " undo each other" if first in acting and second in acting else " opposed"
        parts.append(words)
    return "cosines: " + ", ".join(parts) if parts else ""
