"""Pages of help at any width: a key or a word, then what it means, which goes on under itself."""

from __future__ import annotations

import re
import textwrap

TWO = re.compile(r"^  (\S.*?)\s{2,}(\S.*?)\s{3,}(\S.*?)\s{2,}(\S.*)$")
"""A line with two keys and their meanings."""
ONE = re.compile(r"^(  \S.*?\s{2,}|  \S{8,} )(\S.*)$")
LEAST = 24


def fitted(text: str, width: int) -> str:
    """The page at ``width`` cells. Lines that fit stay as they are; two keys on a line get one each where they do not."""
    lines: list[str] = []
    for paragraph in _paragraphs(text.splitlines()):
        if all(len(line) <= width for line in paragraph):
            lines += paragraph
            continue
        first = paragraph[0]
        two = TWO.match(first) if len(paragraph) == 1 else None
        if two:
            place = two.start(2)
            for key, words in ((two[1], two[2]), (two[3], two[4])):
                lines += _wrapped(f"  {key:<{place - 2}}", words, width)
            continue
        one = ONE.match(first)
        head, rest = (one[1], one[2]) if one else (re.match(r"\s*", first)[0], first.strip())  # type: ignore[index]
        lines += _wrapped(head, " ".join([rest, *(line.strip() for line in paragraph[1:])]), width)
    return "\n".join(lines) + "\n"


def _paragraphs(lines: list[str]) -> list[list[str]]:
    """Lines with those that go on from them: indented further than any key."""
    found: list[list[str]] = []
    for line in lines:
        if line.startswith(" " * 6) and found and found[-1][0].strip():
            found[-1].append(line)
        else:
            found.append([line])
    return found


def _wrapped(head: str, words: str, width: int) -> list[str]:
    parts = textwrap.wrap(words, max(LEAST, width - len(head))) or [""]
    return [f"{head if not number else ' ' * len(head)}{part}" for number, part in enumerate(parts)]
