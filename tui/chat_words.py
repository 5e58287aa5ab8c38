"""What is typed into a chat beside what is said: lines that begin with a slash, the same on the screen and in a pipe."""

from __future__ import annotations

from dataclasses import dataclass

from recipes.errors import InputError, Problem, nearest_word, quoted

WORDS: dict[str, str] = {
    "dial": "NAME VALUE: turn a steering vector or the abliteration's strength; the next token feels it",
    "system": "TEXT: the system prompt; empty for none",
    "temperature": "0 is greedy",
    "top_p": "share of the probability that is drawn from",
    "max_tokens": "longest reply",
    "seed": "decides all that is drawn",
    "gauge": "kl, logprob or off: what the tokens are coloured by",
    "stage": "NUMBER, METHOD or base: talk with another stage",
    "compare": "the same, beside it; off for none",
    "regenerate": "the last question again, with another seed",
    "clear": "begin again",
    "settings": "what is set now",
    "help": "this list",
    "quit": "leave",
}
SETTINGS = ("system", "temperature", "top_p", "max_tokens", "seed", "gauge")


@dataclass(frozen=True)
class Word:
    name: str
    rest: str


def parse(line: str) -> Word | None:
    """The command in a line, or None when the line is to be said (``//`` at the front says a slash). Raises
    InputError for an unknown word."""
    if not line.startswith("/") or line.startswith("//"):
        return None
    name, _, rest = line[1:].strip().partition(" ")
    name = name.replace("-", "_")
    if name not in WORDS:
        known = ", ".join(f"/{word}" for word in WORDS)
        near = nearest_word(name, WORDS)
        raise InputError([Problem("chat", None, None, f"`/{name}`", known, f"/{near}" if near else None)])
    return Word(name, rest.strip())


def said(line: str) -> str:
    """What a line says to the model."""
    return line[1:] if line.startswith("//") else line


def dial_of(text: str, names: list[str]) -> tuple[str, float]:
    """``NAME VALUE`` or ``NAME=VALUE``. Raises InputError."""
    name, _, value = text.replace("=", " ").strip().rpartition(" ")
    name = name.strip()
    try:
        number = float(value)
    except ValueError:
        raise InputError(
            [Problem("dial", None, None, f"`{text}`", "a name and a number, such as `warm 0.5`")]
        ) from None
    if name not in names:
        accepted = quoted(names) if names else "none: this stage has neither vectors nor edits"
        raise InputError([Problem("dial", None, None, f"`{name}`", accepted, nearest_word(name, names))])
    return name, number
