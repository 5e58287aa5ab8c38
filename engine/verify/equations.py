"""Arithmetic and algebra as people write it in steps: a small parser of our own, and exact evaluation.

``12 - 3``, ``2x + 3``, ``(4 + 5) × 2``. Trees are numbers (Fraction), unknowns (one letter) or
(sign, left, right). Standard library only.
"""

from __future__ import annotations

import re
from fractions import Fraction

Tree = Fraction | str | tuple[str, "Tree", "Tree"]
TOKEN = re.compile(r"\s*(?:(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)|([A-Za-z])(?![A-Za-z])|(\*\*|[-+*/^()]))")
SIGNS = str.maketrans({"\u2212": "-", "\u2013": "-", "\u00d7": "*", "\u00b7": "*", "\u00f7": "/", "[": "(", "]": ")"})
LONGEST, DEEPEST, LARGEST_POWER = 200, 20, 64


def parse(text: str) -> Tree | None:
    """None for what is no expression, too long or too deep."""
    text = text.strip().translate(SIGNS)
    if not text or len(text) > LONGEST:
        return None
    tokens: list[str] = []
    at = 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if match is None:
            if text[at:].strip():
                return None
            break
        tokens.append(match[0].strip().replace("**", "^").replace(",", ""))
        at = match.end()
    parser = _Parser(tokens)
    try:
        tree = parser.total(0)
    except _NoExpression:
        return None
    return tree if parser.at == len(tokens) else None


class _NoExpression(Exception):
    pass


class _Parser:
    """Recursive descent: total → product → power → atom. A number before a letter or bracket multiplies it."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens, self.at = tokens, 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self) -> str:
        self.at += 1
        return self.tokens[self.at - 1]

    def total(self, depth: int) -> Tree:
        if depth > DEEPEST:
            raise _NoExpression
        tree = self.product(depth)
        while self.peek() in ("+", "-"):
            tree = (self.take(), tree, self.product(depth))
        return tree

    def product(self, depth: int) -> Tree:
        tree = self.power(depth)
        while self.peek() in ("*", "/") or (self.peek() == "(" or self.peek().isalpha()):
            sign = self.take() if self.peek() in ("*", "/") else "*"
            tree = (sign, tree, self.power(depth))
        return tree

    def power(self, depth: int) -> Tree:
        if self.peek() in ("-", "+"):
            sign, below = self.take(), self.power(depth + 1)
            if depth > DEEPEST:
                raise _NoExpression
            if isinstance(below, Fraction):
                return -below if sign == "-" else below
            return (sign, Fraction(0), below)
        tree = self.atom(depth)
        if self.peek() == "^":
            self.take()
            tree = ("^", tree, self.atom(depth))
        return tree

    def atom(self, depth: int) -> Tree:
        word = self.peek()
        if word == "(":
            self.take()
            tree = self.total(depth + 1)
            if self.peek() != ")":
                raise _NoExpression
            self.take()
            return tree
        if not word or word in "+-*/^)":
            raise _NoExpression
        self.take()
        return word if word.isalpha() else Fraction(word)


def evaluate(tree: Tree) -> Fraction | None:
    """The exact value; None with an unknown, a division by zero or a power that is not a small whole number."""
    if not isinstance(tree, tuple):
        return None if isinstance(tree, str) else tree
    sign, left, right = tree
    a, b = evaluate(left), evaluate(right)
    if a is None or b is None:
        return None
    if sign == "+":
        return a + b
    if sign == "-":
        return a - b
    if sign == "*":
        return a * b
    if sign == "/":
        return None if b == 0 else a / b
    if b.denominator != 1 or abs(b) > LARGEST_POWER or (a == 0 and b < 0):
        return None
    if max(abs(a.numerator), a.denominator) > 10**6:
        return None
    return Fraction(a ** int(b))


def leaves(tree: Tree) -> list[Fraction]:
    """The numbers of the tree, in order."""
    if isinstance(tree, tuple):
        return leaves(tree[1]) + leaves(tree[2])
    return [] if isinstance(tree, str) else [tree]


def unknowns(tree: Tree) -> set[str]:
    if isinstance(tree, tuple):
        return unknowns(tree[1]) | unknowns(tree[2])
    return {tree} if isinstance(tree, str) else set()
