"""Bad input, told so that the user can mend it: where, what was found, what is accepted, the nearest valid word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong. ``where`` names the file, override or place; ``line`` counts from 1."""

    where: str
    line: int | None
    field: str | None
    found: str
    accepted: str
    nearest: str | None = None

    def __str__(self) -> str:
        place = self.where + (f", line {self.line}" if self.line else "")
        field = f"`{self.field}`: " if self.field else ""
        hint = f" Did you mean `{self.nearest}`?" if self.nearest else ""
        return f"{place}: {field}found {self.found}; accepted: {self.accepted}.{hint}"


class InputError(Exception):
    """One or more problems of what the user gave. The command line answers it with exit code 2."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


def nearest_word(word: str, words: Iterable[str]) -> str | None:
    """The valid word that was probably meant, or None if nothing is close."""
    found = difflib.get_close_matches(str(word), list(words), n=1, cutoff=0.5)
    return found[0] if found else None


def nearest_pair(found: Iterable[str], words: Iterable[str]) -> str | None:
    """Of several found words and several valid ones, the valid one of the closest pair, if that is close."""
    pairs = [(difflib.SequenceMatcher(None, one, word).ratio(), word) for one in found for word in words]
    ratio, word = max(pairs, default=(0.0, ""))
    return word if ratio >= 0.6 else None


def quoted(words: Iterable[object]) -> str:
    """``a, b, c`` in back-quotes, for error messages."""
    return ", ".join(f"`{word}`" for word in words)
