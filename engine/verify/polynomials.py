"""Polynomials with rational coefficients, written plainly or in simple LaTeX, as exact normal forms.

``2(x + 3)``, ``\\frac{x^{2}}{2} - 1``, ``3 \\cdot 7``. What another reader could take for something else (a letter that is also a
unit or a constant, ``x(y)``, ``2\\frac{1}{2}``, ``2/3x``, ``x^12``, decimals, which are compared after rounding) is none. Standard
library only; the work is bounded.
"""

from __future__ import annotations

import re
from fractions import Fraction

from engine.verify import equations

Monomial = tuple[tuple[str, int], ...]
"""(letter, power) by letter; empty for the constant."""
Polynomial = dict[Monomial, Fraction]
"""Monomial -> its coefficient, which is never 0."""
LONGEST, MOST_TERMS, HIGHEST, LONGEST_NUMBER, MOST_BITS = 120, 40, 9, 6, 200
LETTERS = "abknpqruvwxyz"
"""Not c, d, e, f, g, h, i, j, l, m, o, s, t: units, constants, functions or differentials to math-verify."""
FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
POWER = re.compile(r"\^\{(\d)\}")
PLAIN = re.compile(rf"[\d{LETTERS}+\-*/^() ]+")
AMBIGUOUS = re.compile(
    rf"\d{{{LONGEST_NUMBER + 1}}}|\^\d\d|[a-z] ?\(|\) ?[\da-z]|\) ?\( ?\d+ ?\)|\( ?\d+ ?\) ?\(|[a-z] ?\d|\d +\d"
    r"|[*/^+-] *[*/^+]|- *-|\^ *[^\d]"
)
"""Long numbers, ``x^12``, what could be a function, a number after what it would multiply, two signs in a row."""


def polynomial(text: str) -> Polynomial | None:
    """None for what is no polynomial, could be read in another way, or is large."""
    text = text.strip()
    if len(text) > LONGEST or re.search(r"[\d)}] *\\[dt]?frac", text):
        return None
    text = text.replace("\\left", "").replace("\\right", "").replace("\\cdot", "*").replace("\\times", "*")
    if "/" in text and not re.fullmatch(r"-?\d+/\d+", text):
        return None
    text = POWER.sub(r"^\1", FRACTION.sub(r"((\1)/(\2))", text))
    if not PLAIN.fullmatch(text) or AMBIGUOUS.search(text):
        return None
    tree = equations.parse(text)
    return None if tree is None else _expand(tree)


def is_symbol(one: Polynomial) -> bool:
    """One letter and nothing else."""
    return len(one) == 1 and next(iter(one.items()))[1] == 1 and [power for _, power in next(iter(one))] == [1]


def _expand(tree: equations.Tree) -> Polynomial | None:
    if isinstance(tree, Fraction):
        return {(): tree} if tree else {}
    if isinstance(tree, str):
        return {((tree, 1),): Fraction(1)}
    sign, left, right = tree
    a, b = _expand(left), _expand(right)
    if a is None or b is None:
        return None
    if sign in "+-":
        return _sum(a, b, 1 if sign == "+" else -1)
    if sign == "*":
        return _product(a, b)
    constant = b.get((), Fraction(0))
    if set(b) - {()}:
        return None
    if sign == "/":
        return {monomial: factor / constant for monomial, factor in a.items()} if constant else None
    if constant.denominator != 1 or not 1 <= constant <= HIGHEST:
        return None
    power: Polynomial | None = {(): Fraction(1)}
    for _ in range(int(constant)):
        power = None if power is None else _product(power, a)
    return power


def _sum(a: Polynomial, b: Polynomial, sign: int) -> Polynomial:
    total = dict(a)
    for monomial, factor in b.items():
        total[monomial] = total.get(monomial, Fraction(0)) + sign * factor
    return {monomial: factor for monomial, factor in total.items() if factor}


def _product(a: Polynomial, b: Polynomial) -> Polynomial | None:
    """None when it has many terms, a high degree or a huge coefficient."""
    total: Polynomial = {}
    for one, factor in a.items():
        for other, times in b.items():
            powers = dict(one)
            for letter, power in other:
                powers[letter] = powers.get(letter, 0) + power
            if sum(powers.values()) > HIGHEST:
                return None
            monomial = tuple(sorted(powers.items()))
            total[monomial] = total.get(monomial, Fraction(0)) + factor * times
    sizes = [max(abs(factor.numerator), factor.denominator).bit_length() for factor in total.values()]
    if len(total) > MOST_TERMS or max(sizes, default=0) > MOST_BITS:
        return None
    return {monomial: factor for monomial, factor in total.items() if factor}
