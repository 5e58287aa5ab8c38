"""How replies are drawn and shown, as a person sets it: each value checked, errors in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from recipes.errors import InputError, Problem, nearest_word, quoted

GAUGES = ("", "kl", "logprob")


class Settings(msgspec.Struct):
    """``gauge``: what the tokens are coloured by; empty: nothing."""

    system: str = ""
    temperature: float = 0.7
    top_p: float = 1.0
    max_tokens: int = 256
    seed: int = 0
    gauge: str = ""


def _gauge(text: str) -> str:
    word = "" if text in ("off", "none", "") else text
    if word not in GAUGES:
        raise ValueError
    return word


KINDS: dict[str, tuple[Callable[[str], Any], Callable[[Any], bool], str]] = {
    "system": (str, lambda value: True, "a text; empty for none"),
    "temperature": (float, lambda value: 0 <= value <= 5, "a number from 0 (greedy) to 5"),
    "top_p": (float, lambda value: 0 < value <= 1, "a number above 0 and up to 1 (everything)"),
    "max_tokens": (int, lambda value: 1 <= value <= 100_000, "a whole number from 1 to 100000"),
    "seed": (int, lambda value: 0 <= value < 2**31, "a whole number from 0 to 2147483647"),
    "gauge": (_gauge, lambda value: True, "`kl`, `logprob` or `off`"),
}
"""Name -> how a text becomes the value, whether it is within range, what is accepted in words."""


def changed(settings: Settings, name: str, text: str) -> Settings:
    """The settings with one of them read from a text. Raises InputError."""
    if name not in KINDS:
        raise InputError([Problem("settings", None, None, f"`{name}`", quoted(KINDS), nearest_word(name, KINDS))])
    read, within, accepted = KINDS[name]
    try:
        value = read(text.strip())
        good = within(value)
    except ValueError:
        good = False
    if not good:
        raise InputError([Problem("settings", None, name, f"`{text.strip()}`", accepted)])
    return msgspec.structs.replace(settings, **{name: value})
