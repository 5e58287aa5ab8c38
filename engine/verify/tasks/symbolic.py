"""math-verify and algebra on sympy. Imports nothing of the project but its parser."""

from __future__ import annotations

import functools
import logging
from typing import Any

import sympy
from math_verify import parse, verify

from engine.verify import equations

logging.getLogger("math_verify").setLevel(logging.ERROR)


@functools.lru_cache(maxsize=1024)
def _gold(answer: str) -> Any:
    found = parse(f"${answer}$" if "$" not in answer and "\\boxed" not in answer else answer, parsing_timeout=None)
    return found or parse(answer, parsing_timeout=None)


@functools.lru_cache(maxsize=1024)
def _in_box(box: str) -> Any:
    return parse(f"\\boxed{{{box}}}", parsing_timeout=None)


def judged(text: str, answer: str, boxed: bool) -> bool | None:
    """math-verify's judgement of a completion, or of what stands in its box: None for a box that it cannot parse, where it
    would look elsewhere in the completion. Its own time limits (SIGALRM) are off: the owner kills this process."""
    if not boxed:
        return _equal(_gold(answer), parse(text, parsing_timeout=None))
    found = _in_box(text)
    return _equal(_gold(answer), found) if found and not isinstance(found[0], str) else None


def _equal(wanted: Any, found: Any) -> bool:
    """Beside the expression each has its text: where one of those is the same, the expressions need no comparing."""
    texts = {one.strip() for one in wanted if isinstance(one, str)} - {""}
    if any(isinstance(one, str) and one.strip() in texts for one in found):
        return True
    return bool(verify(wanted, found, timeout_seconds=None))


def follows(equation: str, earlier: list[str]) -> bool:
    """True if the equation, with at least one unknown, holds wherever one of ``earlier`` equations of the same unknowns
    does, and the other way round: it has the same solutions. Two unknowns or more: it is a consequence of all of them.
    """
    one = _equation(equation)
    if one is None or not one.free_symbols or one == 0:
        return False
    known = [found for text in earlier if (found := _equation(text)) is not None and found.free_symbols]
    for other in known:
        if other.free_symbols == one.free_symbols and len(one.free_symbols) == 1:
            symbol = next(iter(one.free_symbols))
            if sympy.solveset(one, symbol, sympy.S.Complexes) == sympy.solveset(other, symbol, sympy.S.Complexes):
                return True
        elif other.free_symbols == one.free_symbols:
            quotient = sympy.cancel(one / other)
            if not quotient.free_symbols and quotient != 0:
                return True
    unknowns = sorted(set().union(*(other.free_symbols for other in known)), key=str)
    if len(known) < 2 or not one.free_symbols <= set(unknowns):
        return False
    solutions = sympy.solve(known, unknowns, dict=True)
    return bool(solutions) and all(sympy.simplify(one.subs(solution)) == 0 for solution in solutions)


def _equation(text: str) -> Any:
    """Left minus right as a sympy expression, built from our own parser: nothing is evaluated as code."""
    sides = text.split("=")
    if len(sides) != 2:
        return None
    trees = [equations.parse(side) for side in sides]
    if trees[0] is None or trees[1] is None:
        return None
    return sympy.expand(_expression(trees[0]) - _expression(trees[1]))


def _expression(tree: equations.Tree) -> Any:
    if isinstance(tree, str):
        return sympy.Symbol(tree)
    if not isinstance(tree, tuple):
        return sympy.Rational(tree.numerator, tree.denominator)
    sign, left, right = tree
    a, b = _expression(left), _expression(right)
    return {"+": a + b, "-": a - b, "*": a * b, "/": a / b, "^": a**b}[sign]


# The grammar's tables are filled by use: what is parsed here, once, every worker forked from this process knows.
for _text, _answer in (
    ("so \\boxed{\\frac{1}{2}}", "0.5"),
    ("The answer is $x^2 + 2x - \\sqrt{3}$.", "3"),
    ("it is 42", "7,000"),
):
    judged(_text, _answer, False)
