"""Small signs that fall back to ASCII where the terminal cannot show them."""

from __future__ import annotations

import sys


def unicode_terminal() -> bool:
    return "utf" in (getattr(sys.stdout, "encoding", "") or "").lower()


def passed_sign(passed: bool) -> str:
    if unicode_terminal():
        return "✓" if passed else "✗"
    return "ok" if passed else "NO"


def warning_sign() -> str:
    return "⚠" if unicode_terminal() else "!"


def ascii_words(text: str) -> str:
    """The signs that our own words use, in ASCII."""
    for sign, plain in {"≥": ">=", "≤": "<=", "→": "->", "–": "-", "✓": "+", "✗": "!"}.items():
        text = text.replace(sign, plain)
    return text
