"""Polynomials in letters, π and roots of whole numbers, written plainly or in simple LaTeX, as exact normal forms.

``2(x + 3)``, ``\\frac{x^{2}}{2} - 1``, ``3 \\cdot 7``, ``\\frac{3}{\\sqrt{8}} + 1``, ``\\frac{\\pi}{4}``, ``2\\sqrt[3]{16}``. What another
reader could take for something else (a letter that is also a unit or a constant, ``x(y)``, ``2\\frac{1}{2}``, ``2/3x``,
``x^12``, decimals, which are compared after rounding) is none. Standard library only; the work is bounded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction

from engine.verify import equations

Monomial = tuple[tuple[str, int | Fraction], ...]
"""(base, power) by base; empty for the constant. A base is a letter, π or, in digits, a prime: its power is a fraction
between 0 and 1, a root. Products of such roots are independent over the rationals (A. S. Besicovitch, "On the linear
independence of fractional powers of integers", 1940) and π is transcendental, so two forms are equal only if alike."""
Polynomial = dict[Monomial, Fraction]
"""Monomial -> its coefficient, which is never 0."""
PI = "\u03c0"
LONGEST, MOST_TERMS, HIGHEST, LONGEST_NUMBER, MOST_BITS = 120, 40, 9, 6, 200
LETTERS = "abknpqruvwxyz"
"""Not c, d, e, f, g, h, i, j, l, m, o, s, t: units, constants, functions or differentials to math-verify."""
CONSTANT = re.compile(
    rf"\\sqrt(?:\[([2-9])\])?(?:\{{(\d{{1,{LONGEST_NUMBER}}})\}}| ?(\d)(?!\d))|\\pi(?![A-Za-z]| *[_(])"
)
MOST_CONSTANTS = 20
FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
POWER = re.compile(r"\^\{(\d)\}")
PLAIN = re.compile(rf"[\dA-Z{LETTERS}+\-*/^() ]+")
"""Capitals stand for roots and π here; those of the text itself are refused."""
AMBIGUOUS = re.compile(
    rf"\d{{{LONGEST_NUMBER + 1}}}|\^\d\d|[a-z] ?\(|\) ?[\da-z]|\) ?\( ?\d+ ?\)|\( ?\d+ ?\) ?\(|[a-z] ?\d|\d +\d"
    r"|[*/^+-] *[*/^+]|- *-|\^ *[^\d]"
)
"""Long numbers, ``x^12``, what could be a function, a number after what it would multiply, two signs in a row."""


def polynomial(text: str) -> Polynomial | None:
    """None for what is no polynomial, could be read in another way, or is large."""
    text = text.strip()
    if len(text) > LONGEST or re.search(r"[A-Z]|[\d)}] *\\[dt]?frac", text):
        return None
    constants: dict[str, Polynomial] = {}

    def capital(found: re.Match[str]) -> str:
        name = chr(ord("A") + len(constants))
        under = found[2] or found[3]
        constants[name] = {((PI, 1),): Fraction(1)} if under is None else root(int(under), int(found[1] or 2))
        return f" {name} "

    if text.count("\\sqrt") + text.count("\\pi") > MOST_CONSTANTS:
        return None
    text = CONSTANT.sub(capital, text)
    text = text.replace("\\left", "").replace("\\right", "").replace("\\cdot", "*").replace("\\times", "*")
    if "/" in text and not re.fullmatch(r"-?\d+/\d+", text):
        return None
    text = POWER.sub(r"^\1", FRACTION.sub(r"((\1)/(\2))", text))
    if not PLAIN.fullmatch(text) or AMBIGUOUS.search(text):
        return None
    tree = equations.parse(text)
    return None if tree is None else _expand(tree, constants)


def root(number: int, index: int) -> Polynomial:
    """The positive ``index``-th root of a whole number, at most LONGEST_NUMBER digits long."""
    if number == 0:
        return {}
    powers: dict[str, int | Fraction] = {}
    factor, rest = 2, number
    while rest > 1:
        factor = factor if factor * factor <= rest else rest
        while rest % factor == 0:
            rest //= factor
            powers[str(factor)] = powers.get(str(factor), 0) + Fraction(1, index)
        factor += 1
    monomial, outside = _normal(powers)
    return {monomial: outside}


def values(one: Polynomial) -> dict[Monomial, list[float]]:
    """What each monomial of letters is multiplied with: the summands' values, one for each product of roots and π."""
    found: dict[Monomial, list[float]] = {}
    for monomial, factor in one.items():
        value = float(factor)
        for base, power in monomial:
            value *= math.pi**power if base == PI else int(base) ** float(power) if base.isdigit() else 1.0
        found.setdefault(tuple(part for part in monomial if _is_letter(part[0])), []).append(value)
    return found


def _is_letter(base: str) -> bool:
    return base != PI and not base.isdigit()


def is_symbol(one: Polynomial) -> bool:
    """One letter and nothing else."""
    if len(one) != 1:
        return False
    ((monomial, factor),) = one.items()
    return factor == 1 and [power for base, power in monomial if _is_letter(base)] == [1] == [p for _, p in monomial]


def _expand(tree: equations.Tree, constants: dict[str, Polynomial]) -> Polynomial | None:
    if isinstance(tree, Fraction):
        return {(): tree} if tree else {}
    if isinstance(tree, str):
        return constants.get(tree, {((tree, 1),): Fraction(1)})
    sign, left, right = tree
    a, b = _expand(left, constants), _expand(right, constants)
    if a is None or b is None:
        return None
    if sign in "+-":
        return _sum(a, b, 1 if sign == "+" else -1)
    if sign == "*":
        return _product(a, b)
    if sign == "/":
        inverse = _inverse(b)
        return None if inverse is None else _product(a, inverse)
    constant = b.get((), Fraction(0))
    if set(b) - {()} or constant.denominator != 1 or not 1 <= constant <= HIGHEST:
        return None
    power: Polynomial | None = {(): Fraction(1)}
    for _ in range(int(constant)):
        power = None if power is None else _product(power, a)
    return power


def _inverse(one: Polynomial) -> Polynomial | None:
    """Of a number, or a number times roots: 1/√n is √n/n. None of anything else."""
    if len(one) != 1:
        return None
    ((monomial, factor),) = one.items()
    if not all(base.isdigit() for base, _ in monomial):
        return None
    inverse, outside = _normal({base: -power for base, power in monomial})
    return {inverse: outside / factor}


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
            for base, power in other:
                powers[base] = powers.get(base, 0) + power
            monomial, outside = _normal(powers)
            if sum(power for base, power in monomial if not base.isdigit()) > HIGHEST:
                return None
            total[monomial] = total.get(monomial, Fraction(0)) + factor * times * outside
    sizes = [max(abs(factor.numerator), factor.denominator).bit_length() for factor in total.values()]
    if len(total) > MOST_TERMS or max(sizes, default=0) > MOST_BITS:
        return None
    return {monomial: factor for monomial, factor in total.items() if factor}


def _normal(powers: Mapping[str, int | Fraction]) -> tuple[Monomial, Fraction]:
    """``(monomial, factor)``: the whole part of a prime's power goes into the factor."""
    outside, inside = Fraction(1), []
    for base, power in sorted(powers.items()):
        if base.isdigit():
            whole = math.floor(power)
            outside, power = outside * Fraction(int(base)) ** whole, power - whole
        if power:
            inside.append((base, power))
    return tuple(inside), outside
