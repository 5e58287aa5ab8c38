"""The judge of a preference stage: whether a sampled completion shows the preferred behaviour, the other, or is broken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from engine.verify.patterns import Patterns, Told, load_patterns

Verdict = Literal["preferred", "rejected", "broken"]


class Judge:
    """Two regular expressions that describe well-formed completions; what matches neither is broken.

    A completion is judged whole (full match), so that a reply that starts well and ends in garbage, stops in the
    middle or repeats itself counts as broken, not as preferred. So does one whose match comes to no end. Close it when done.
    """

    def __init__(self, patterns: Patterns) -> None:
        self._patterns = patterns

    def verdicts(self, completions: Sequence[str], finished: Sequence[bool]) -> list[Verdict]:
        """In order. ``finished`` is False for a completion that was cut at the token limit: a broken one."""
        whole = [text.strip() for text, ended in zip(completions, finished, strict=True) if ended]
        named = iter(self._patterns.first(whole))
        return [_verdict(next(named)) if ended else "broken" for ended in finished]

    def tell(self, told: Told) -> None:
        """``told`` is called once, with words, if a match comes to no end."""
        self._patterns.told = told

    def close(self) -> None:
        self._patterns.close()


def _verdict(name: str | None) -> Verdict:
    return "preferred" if name == "preferred" else "rejected" if name == "rejected" else "broken"


def load_judge(path: Path) -> Judge:
    """Read a judge from a YAML file with the two keys ``preferred`` and ``rejected``. Starts no process.

    Raises InputError naming the file and the key when one is missing, unknown or no regular expression.
    """
    return Judge(load_patterns(path, ("preferred", "rejected")))
