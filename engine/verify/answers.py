"""Whether a short answer is the right one."""

from __future__ import annotations

import unicodedata


def normalise(answer: str) -> str:
    """Lower case, one space between words, no final full stop: what may differ between two right answers."""
    text = unicodedata.normalize("NFKC", answer).casefold()
    return " ".join(text.split()).rstrip(".").rstrip()


def matches(completion: str, answer: str) -> bool:
    """True if the whole completion is the answer. A right word somewhere in a longer text does not count."""
    return normalise(completion) == normalise(answer)
