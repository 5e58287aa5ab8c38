"""Cutting a text at what separates its steps. Standard library only: a worker calls it too."""

from __future__ import annotations

import re


def segments(separator: str, text: str) -> list[tuple[int, int]]:
    """Start and end, in characters, of what stands between the matches of ``separator``."""
    edges, start = [], 0
    for match in re.compile(separator).finditer(text):
        edges.append((start, match.start()))
        start = match.end()
    return [*edges, (start, len(text))]
