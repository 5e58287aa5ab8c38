"""Sums of vectors as a recipe writes them: ``warm + 0.5*brief - formal``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from recipes.errors import nearest_word, quoted

TERM = re.compile(r"\s*([+-])?\s*(?:(\d+(?:\.\d*)?|\.\d+)\s*\*\s*)?([A-Za-z_][\w-]*)\s*")


class CompositionError(ValueError):
    """What is accepted instead, in words."""


def parse_composition(text: str, names: Sequence[str]) -> dict[str, float]:
    """Name -> factor; a name that occurs twice has its factors added. Raises CompositionError."""
    factors: dict[str, float] = {}
    place = 0
    while place < len(text):
        term = TERM.match(text, place)
        if term is None or (place and term.group(1) is None):
            raise CompositionError(f"a sum such as `warm + 0.5*brief`; `{text[place:].strip()}` is no term of one")
        sign, factor, name = term.groups()
        if name not in names:
            near = nearest_word(name, names)
            raise CompositionError(
                f"names among {quoted(names)}; `{name}` is none" + (f" (did you mean `{near}`?)" if near else "")
            )
        factors[name] = factors.get(name, 0.0) + float(factor or 1) * (-1 if sign == "-" else 1)
        place = term.end()
    if not factors:
        raise CompositionError("a sum such as `warm + 0.5*brief`")
    return factors
