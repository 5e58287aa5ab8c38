"""A user's two regular expressions that say what a whole text is, matched where a match that never ends can be ended."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml

from engine.verify.sandbox.pool import SandboxError
from engine.verify.workers import Called, Workers
from recipes.errors import InputError, Problem

SECONDS = 1.0
"""For one text against one pattern, as the verifier `regex` has it."""
TOGETHER = 64
"""Texts in one call: a call costs more than a cheap match."""
SHOWN = 60
"""Characters of a text and of a pattern that a note begins with."""

Told = Callable[[str], None]


class Patterns:
    """Named regular expressions; a text is what the first that matches it whole says.

    They are matched in processes of their own (workers.py), which start with the first texts and are killed and replaced
    when a match takes longer than SECONDS. ``told`` is called once, with words, when that has happened. Close it when done.
    """

    def __init__(self, patterns: Mapping[str, str], where: str) -> None:
        self._patterns, self._where = dict(patterns), where
        self._workers: Workers | None = None
        self.told: Told | None = None

    def first(self, texts: Sequence[str]) -> list[str | None]:
        """For each text the name of the first pattern that matches it as a whole, stripped; None where none does, or where
        the match did not end in time. Equal texts are matched once. Raises InputError when no process can be started."""
        distinct = list(dict.fromkeys(texts))
        parts = [distinct[start : start + TOGETHER] for start in range(0, len(distinct), TOGETHER)]
        found: dict[str, str | None] = {}
        try:
            together = self._call([(list(self._patterns.values()), part) for part in parts])
            alone: list[str] = []
            for part, called in zip(parts, together, strict=True):
                if called.failure is None:
                    found |= {text: self._name(place) for text, place in zip(part, called.value, strict=True)}
                else:  # whose fault it was, and what the others are
                    alone += part
            found |= self._one_by_one(alone)
        except SandboxError as error:
            said = f"patterns, and their process cannot be started ({error})"
            raise InputError([Problem(self._where, None, None, said, "a machine on which it starts")]) from error
        return [found[text] for text in texts]

    def close(self) -> None:
        """End the processes; the next ``first`` starts others."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    def _name(self, place: int | None) -> str | None:
        return None if place is None else list(self._patterns)[place]

    def _one_by_one(self, texts: list[str]) -> dict[str, str | None]:
        """Each text alone against each pattern alone, at most SECONDS each. Without its end there is no verdict, so what
        a later pattern would say does not count."""
        found: dict[str, str | None] = dict.fromkeys(texts)
        left = texts
        for name, pattern in self._patterns.items():
            asked, left = left, []
            for text, called in zip(asked, self._call([([pattern], [text]) for text in asked]), strict=True):
                if called.failure is not None:
                    self._tell(name, pattern, text, called.failure)
                elif called.value[0] is None:
                    left.append(text)
                else:
                    found[text] = name
        return found

    def _call(self, arguments: Sequence[tuple[list[str], list[str]]]) -> list[Called]:
        if not arguments:
            return []
        if self._workers is None:
            self._workers = Workers("text", "first_full_match", SECONDS)
        return self._workers.call(arguments)

    def _tell(self, name: str, pattern: str, text: str, why: str) -> None:
        told, self.told = self.told, None
        if told is not None:
            told(
                f"the judge's pattern `{name}`, {_begin(pattern)}, came to no end on the completion {_begin(text)} ({why}; "
                f"{SECONDS:g} s are allowed): it counts as broken, and so will others that do the same; what takes so "
                "long is mostly a repetition inside a repetition"
            )


def _begin(text: str) -> str:
    text = text.strip()
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 1] + "…")


def load_patterns(path: Path, names: tuple[str, str]) -> Patterns:
    """Read a YAML file with exactly these two keys; ``names`` are in the order in which they are tried. Starts no process.

    Raises InputError naming the file and the key when one is missing, unknown or no regular expression.
    """
    first, second = sorted(names)
    accepted = f"a mapping with the two keys `{first}` and `{second}`, each a regular expression"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError([Problem(str(path), None, None, f"an unreadable file ({error})", accepted, None)]) from error
    if not isinstance(found, dict) or set(found) != set(names):
        keys = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise InputError([Problem(str(path), None, None, keys, accepted, None)])
    patterns = {name: str(found[name]) for name in names}
    for name, text in patterns.items():
        try:
            re.compile(text, re.DOTALL)
        except (re.error, OverflowError, RecursionError) as error:
            raise InputError([Problem(str(path), None, name, f"{text!r} ({error})", accepted, None)]) from error
    return Patterns(patterns, str(path))
