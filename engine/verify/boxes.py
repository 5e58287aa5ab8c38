"""Mathematics in a box: the completions of which math-verify reads the box alone, and what of them needs no mathematics.

math-verify looks for "final answer", then for boxes, then elsewhere. So one box that it can parse is the answer, whatever stands
around it; and a number, a polynomial, roots or π in it can be compared with the reference exactly, without sympy.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from engine.verify.polynomials import Monomial, is_symbol, polynomial, values

BOX = "\\boxed{"
ELSEWHERE = re.compile(r"final answer|\\begin|fbox", re.IGNORECASE)
"""What math-verify may look at before a box, or reads boxes otherwise in."""
SHARE = re.compile(r"%|percent|pct", re.IGNORECASE)
"""After a box it may belong to it."""
LONGEST = 500
PLAIN = re.compile(r"(-?\d{1,15})(?:\.(\d{1,15}))?|(-?)\\[dt]?frac\{(\d{1,15})\}\{(\d{1,15})\}")
NEAREST = 1e-5
"""Least difference of two coefficients that no rounding hides."""


def box_of(completion: str) -> str | None:
    """What is in the one box of the completion; None where math-verify may read anything else than that."""
    start = completion.find(BOX)
    if start < 0 or completion.count("boxed") != 1 or ELSEWHERE.search(completion):
        return None
    depth = 0
    for at in range(start + len(BOX) - 1, min(len(completion), start + LONGEST)):
        depth += {"{": 1, "}": -1}.get(completion[at], 0)
        if depth == 0:
            inside = completion[start + len(BOX) : at].strip()
            return None if "$" in inside or "\n" in inside or SHARE.search(completion, at) else inside
    return None


def plainly_equal(box: str, answer: str) -> bool | None:
    """math-verify's judgement of ``\\boxed{box}`` where no mathematics is needed: numbers, polynomials, roots and π.

    None where it is to be asked: other notations, and decimals that are not exactly equal, which it compares after rounding.
    """
    given, wanted = _plain(box), _plain(answer)
    if given is not None and wanted is not None:
        if given == wanted:
            return True
        if given.denominator == wanted.denominator == 1:
            return False
    one, other = polynomial(box), polynomial(answer)
    if one is None or other is None or is_symbol(one) or is_symbol(other):  # symbols it compares by name
        return None
    if one == other:
        return True
    return False if _clearly_apart(values(one), values(other)) else None


def _clearly_apart(one: dict[Monomial, list[float]], other: dict[Monomial, list[float]]) -> bool:
    """Whether a coefficient differs by more than any rounding hides, floating point's included."""
    for monomial in {*one, *other}:
        summands = [*one.get(monomial, []), *(-value for value in other.get(monomial, []))]
        if abs(math.fsum(summands)) >= max(NEAREST, 1e-9 * math.fsum(map(abs, summands))):
            return True
    return False


def _plain(text: str) -> Fraction | None:
    match = PLAIN.fullmatch(text.strip())
    if match is None:
        return None
    whole, decimals, sign, above, below = match.groups()
    if whole is not None:
        return Fraction(f"{whole}.{decimals}" if decimals else whole)
    return Fraction(int(above), int(below)) * (-1 if sign else 1) if int(below) else None
