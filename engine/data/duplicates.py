"""Rows that occur again, exactly or nearly. In bounded memory, whatever the file's size."""

from __future__ import annotations

import hashlib
import mmap
import re
import zlib
from collections import defaultdict
from dataclasses import dataclass, field

BITS = 2**29
"""Of the Bloom filter: 64 MiB, of which only what is used becomes real. One new row in 10^8 is taken
for a repeated one after a million rows, 3 in 100,000 after ten million."""
HASHES = 4
REMEMBERED = 200_000
"""Rows whose line is kept, so that a repetition can name the first."""
COMPARED = 10_000
"""Rows that are compared for near-duplicates: the first ones."""
WORDS = 3
LEAST_SHINGLES = 6
"""Shorter texts are alike by nature."""
SKETCH = 64
"""Smallest hashes that are kept of a row: enough to estimate the similarity, few enough for memory."""
ALIKE = 0.8
"""Jaccard similarity of three-word shingles from which two rows are near-duplicates."""
KEYS = 3
"""Smallest shingle hashes under which a row is filed (MinHash): rows that are much alike share one of them."""
CANDIDATES = 20
"""Rows under one key that are looked at: data made from templates share their beginnings by the hundred."""


class Seen:
    """A set of texts that can only be added to and asked, in 64 MiB."""

    def __init__(self) -> None:
        self._bits = mmap.mmap(-1, BITS // 8)  # pages that are never touched are never there
        self._lines: dict[bytes, int] = {}

    def add(self, text: str, line: int) -> int | None:
        """The line of the first equal text (0 when it is not remembered), or None when the text is new."""
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4 * HASHES).digest()
        new = False
        for start in range(0, len(digest), 4):
            place = int.from_bytes(digest[start : start + 4], "little") % BITS
            if not self._bits[place >> 3] >> (place & 7) & 1:
                self._bits[place >> 3] |= 1 << (place & 7)
                new = True
        if not new:
            return self._lines.get(digest, 0)
        if len(self._lines) < REMEMBERED:
            self._lines[digest] = line
        return None

    def __contains__(self, text: str) -> bool:
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=4 * HASHES).digest()
        places = (int.from_bytes(digest[start : start + 4], "little") % BITS for start in range(0, len(digest), 4))
        return all(self._bits[place >> 3] >> (place & 7) & 1 for place in places)


def shingles(text: str) -> frozenset[int]:
    """The smallest hashes of the text's three-word sequences."""
    words = re.findall(r"\w+", text.lower())
    found = {zlib.crc32(" ".join(words[at : at + WORDS]).encode()) for at in range(len(words) - WORDS + 1)}
    return frozenset(sorted(found)[:SKETCH])


@dataclass
class Near:
    """Near-duplicates among the first rows."""

    compared: int = 0
    pairs: int = 0
    """Rows that are nearly another one before them."""
    example: tuple[int, int] | None = None
    _filed: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    _sketches: list[tuple[int, frozenset[int]]] = field(default_factory=list)

    def add(self, text: str, line: int) -> None:
        if self.compared >= COMPARED:
            return
        sketch = shingles(text)
        if len(sketch) < LEAST_SHINGLES:
            return
        self.compared += 1
        other = self.like(sketch)
        if other is not None:
            self.pairs += 1
            self.example = self.example or (other, line)
        number = len(self._sketches)
        self._sketches.append((line, sketch))
        for key in sorted(sketch)[:KEYS]:
            self._filed[key].append(number)

    def like(self, sketch: frozenset[int]) -> int | None:
        """The line of a row that is nearly this one."""
        size, looked = len(sketch), set()
        for key in sorted(sketch)[:KEYS]:
            for number in self._filed.get(key, ())[-CANDIDATES:]:
                if number in looked:
                    continue
                looked.add(number)
                line, other = self._sketches[number]
                if min(size, len(other)) < ALIKE * max(size, len(other)):
                    continue  # however much they share
                both = len(sketch & other)
                if both >= ALIKE * (size + len(other) - both):
                    return line
        return None
