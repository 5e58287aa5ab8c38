"""The judge of a preference stage: whether a sampled completion shows the preferred behaviour, the other, or is broken."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from recipes.errors import InputError, Problem

Verdict = Literal["preferred", "rejected", "broken"]


@dataclass(frozen=True)
class Judge:
    """Two regular expressions that describe well-formed completions; what matches neither is broken.

    A completion is judged whole (full match), so that a reply that starts well and ends in garbage, stops in the
    middle or repeats itself counts as broken, not as preferred.
    """

    preferred: re.Pattern[str]
    rejected: re.Pattern[str]

    def verdict(self, completion: str, finished: bool = True) -> Verdict:
        """``finished`` is False for a completion that was cut at the token limit: a broken one."""
        text = completion.strip()
        if not finished:
            return "broken"
        if self.preferred.fullmatch(text):
            return "preferred"
        if self.rejected.fullmatch(text):
            return "rejected"
        return "broken"


def load_judge(path: Path) -> Judge:
    """Read a judge from a YAML file with the two keys ``preferred`` and ``rejected``.

    Raises InputError naming the file and the key when one is missing, unknown or no regular expression.
    """
    accepted = "a mapping with the two keys `preferred` and `rejected`, each a regular expression"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError([Problem(str(path), None, None, f"an unreadable file ({error})", accepted, None)]) from error
    if not isinstance(found, dict) or set(found) != {"preferred", "rejected"}:
        keys = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise InputError([Problem(str(path), None, None, keys, accepted, None)])
    patterns = {}
    for key, text in found.items():
        try:
            patterns[key] = re.compile(str(text), re.DOTALL)
        except re.error as error:
            raise InputError([Problem(str(path), None, key, f"{text!r} ({error})", accepted, None)]) from error
    return Judge(patterns["preferred"], patterns["rejected"])
