"""Polynomials in letters and square roots of whole numbers, written plainly or in simple LaTeX, as exact normal forms.

``2(x + 3)``, ``\\frac{x^{2}}{2} - 1``, ``3 \\cdot 7``, ``\\frac{3}{\\sqrt{8}} + 1``. What another reader could take for something else (a letter that is also a
unit or a constant, ``x(y)``, ``2\\frac{1}{2}``, ``2/3x``, ``x^12``, decimals, which are compared after rounding) is none. Standard
library only; the work is bounded.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from engine.verify import equations

Monomial = tuple[tuple[str, int], ...]
"""(letter, power) by letter; empty for the constant. A square root is ``(ROOT, what it is of)``, a number without a square
in it; there is one at most, for two make a factor and a third."""
Polynomial = dict[Monomial, Fraction]
"""Monomial -> its coefficient, which is never 0."""
ROOT = "\u221a"
LONGEST, MOST_TERMS, HIGHEST, LONGEST_NUMBER, MOST_BITS = 120, 40, 9, 6, 200
LETTERS = "abknpqruvwxyz"
"""Not c, d, e, f, g, h, i, j, l, m, o, s, t: units, constants, functions or differentials to math-verify."""
SQUARE_ROOT = re.compile(rf"\\sqrt(?:\{{(\d{{1,{LONGEST_NUMBER}}})\}}| ?(\d)(?!\d))")
LARGEST_ROOT, MOST_ROOTS = 10**12, 20
FRACTION = re.compile(r"\\[dt]?frac\{([^{}]*)\}\{([^{}]*)\}")
POWER = re.compile(r"\^\{(\d)\}")
PLAIN = re.compile(rf"[\dA-Z{LETTERS}+\-*/^() ]+")
"""Capitals stand for square roots here; those of the text itself are refused."""
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
    roots: dict[str, tuple[int, int]] = {}

    def capital(found: re.Match[str]) -> str:
        name = chr(ord("A") + len(roots))
        roots[name] = without_squares(int(found[1] or found[2]))
        return f" {name} "

    if text.count("\\sqrt") > MOST_ROOTS:
        return None
    text = SQUARE_ROOT.sub(capital, text)
    text = text.replace("\\left", "").replace("\\right", "").replace("\\cdot", "*").replace("\\times", "*")
    if "/" in text and not re.fullmatch(r"-?\d+/\d+", text):
        return None
    text = POWER.sub(r"^\1", FRACTION.sub(r"((\1)/(\2))", text))
    if not PLAIN.fullmatch(text) or AMBIGUOUS.search(text):
        return None
    tree = equations.parse(text)
    return None if tree is None else _expand(tree, roots)


def without_squares(number: int) -> tuple[int, int]:
    """``(a, b)`` with a²·b = number and no square in b; (0, 1) for 0."""
    if number == 0:
        return 0, 1
    outside, inside, factor = 1, number, 2
    while factor * factor <= inside:
        while inside % (factor * factor) == 0:
            inside //= factor * factor
            outside *= factor
        factor += 1
    return outside, inside


def values(one: Polynomial) -> dict[Monomial, list[float]]:
    """What each monomial of letters is multiplied with: the summands' values, one for each square root."""
    found: dict[Monomial, list[float]] = {}
    for monomial, factor in one.items():
        root = next((number for letter, number in monomial if letter == ROOT), 1)
        letters = tuple(part for part in monomial if part[0] != ROOT)
        found.setdefault(letters, []).append(float(factor) * math.sqrt(root))
    return found


def is_symbol(one: Polynomial) -> bool:
    """One letter and nothing else."""
    return len(one) == 1 and next(iter(one.items()))[1] == 1 and [power for _, power in next(iter(one))] == [1]


def _expand(tree: equations.Tree, roots: dict[str, tuple[int, int]]) -> Polynomial | None:
    if isinstance(tree, Fraction):
        return {(): tree} if tree else {}
    if isinstance(tree, str):
        if tree not in roots:
            return {((tree, 1),): Fraction(1)}
        outside, inside = roots[tree]
        root: Monomial = ((ROOT, inside),) if inside > 1 else ()
        return {root: Fraction(outside)} if outside else {}
    sign, left, right = tree
    a, b = _expand(left, roots), _expand(right, roots)
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
    """Of a number, or a number times a square root: 1/√n is √n/n. None of anything else."""
    if len(one) != 1:
        return None
    ((monomial, factor),) = one.items()
    if monomial == ():
        return {(): 1 / factor}
    if len(monomial) == 1 and monomial[0][0] == ROOT:
        return {monomial: 1 / (factor * monomial[0][1])}
    return None


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
            monomial, outside = _together(dict(one), other)
            letters = sum(power for letter, power in monomial if letter != ROOT)
            if letters > HIGHEST or any(letter == ROOT and of > LARGEST_ROOT for letter, of in monomial):
                return None
            total[monomial] = total.get(monomial, Fraction(0)) + factor * times * outside
    sizes = [max(abs(factor.numerator), factor.denominator).bit_length() for factor in total.values()]
    if len(total) > MOST_TERMS or max(sizes, default=0) > MOST_BITS:
        return None
    return {monomial: factor for monomial, factor in total.items() if factor}


def _together(powers: dict[str, int], other: Monomial) -> tuple[Monomial, int]:
    """``(monomial, factor)`` of two monomials: √(ac) · √(bc) = c√(ab)."""
    outside = 1
    for letter, power in other:
        if letter != ROOT:
            powers[letter] = powers.get(letter, 0) + power
            continue
        of = powers.pop(ROOT, 1)
        outside = math.gcd(of, power)
        inside = of * power // outside**2
        if inside > 1:
            powers[ROOT] = inside
    return tuple(sorted(powers.items())), outside
