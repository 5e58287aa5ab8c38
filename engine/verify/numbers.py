"""Numbers in text, exactly: whole numbers, decimals and fractions as Fraction, never as float."""

from __future__ import annotations

import re
from fractions import Fraction

NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>[-+\u2212](?=[\d.]))?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"(?:[eE](?P<exponent>[-+]?\d{1,3})(?![\w]))?"
    r"(?:\s?/\s?(?P<below>\d+))?"
)
"""A minus sign belongs to the number unless a word or number stands before it (``7-3`` holds 7 and 3)."""
LONGEST = 400
"""Characters of a number that is looked at: longer ones are noise, and costly."""


def value(match: re.Match[str]) -> Fraction | None:
    """None for a zero below the line, and for what is too long."""
    if len(match[0]) > LONGEST:
        return None
    found = Fraction(match["digits"].replace(",", ""))
    if match["exponent"]:
        found *= Fraction(10) ** int(match["exponent"])
    if match["below"]:
        if int(match["below"]) == 0:
            return None
        found /= int(match["below"])
    return -found if match["sign"] in ("-", "\u2212") else found


def numbers(text: str) -> list[Fraction]:
    """All numbers of the text, in order."""
    return [found for match in NUMBER.finditer(text) if (found := value(match)) is not None]


def last_number(text: str) -> Fraction | None:
    last = None
    for match in NUMBER.finditer(text):
        last = match
    return None if last is None else value(last)


def exact_number(text: str) -> Fraction | None:
    """The number that the whole text is, but for spaces, a currency or per cent sign and a final full stop."""
    stripped = text.strip().rstrip(".").strip().strip("$€£%").strip()
    match = NUMBER.fullmatch(stripped)
    return None if match is None else value(match)
