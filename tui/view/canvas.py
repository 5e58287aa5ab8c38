"""Dots and signs on cells of text, and the scales of axes. Pure: what is drawn can be timed and tested without a screen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Row = list[tuple[str, str]]
"""One row of a picture: (text, role) parts from left to right; a role is what it shows, such as ``line``."""

BRAILLE = 0x2800
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""Bits of the left and the right column of a braille cell, from top to bottom."""
ASCII = {"target": "-", "raw": ".", "axis": "."}
"""Signs of a dot where there is no Unicode; every other role's is ``*``."""


@dataclass(frozen=True)
class Scale:
    """From figures to the share of the way from ``low`` to ``high``; both positive where it is logarithmic."""

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """0 at ``low``, 1 at ``high``; NaN for what the scale cannot show."""
        if not self.log:
            return (value - self.low) / (self.high - self.low)
        return math.log(value / self.low) / math.log(self.high / self.low) if value > 0 else math.nan

    def ticks(self, about: int) -> list[float]:
        """Round figures within the scale, about that many."""
        if about < 1:
            return []
        if self.log and self.high / self.low >= 10:
            first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
            every = max(1, math.ceil((last - first + 1) / about))
            return [10.0**power for power in range(first, last + 1, every)]
        size = _round_step((self.high - self.low) / about)
        first, last = math.ceil(self.low / size), math.floor(self.high / size)
        return [number * size for number in range(first, last + 1)]


def _round_step(size: float) -> float:
    """The next of 1, 2, 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(size))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= size * (1 - 1e-9))


def label(value: float) -> str:
    text = f"{value:.3g}"
    return text if len(text) <= 7 else f"{value:.1e}"


class Canvas:
    """Two by four dots a cell in braille, one in ASCII. A later role takes the cells that it shares with an earlier one."""

    def __init__(self, width: int, height: int, ascii_only: bool) -> None:
        self.width, self.height, self.ascii_only = width, height, ascii_only
        self.dot_columns = width if ascii_only else 2 * width
        self.dot_rows = height if ascii_only else 4 * height
        self._bits = [0] * (width * height)
        self._roles = [""] * (width * height)
        self._signs: dict[int, tuple[str, str]] = {}

    def dot(self, column: int, row: int, role: str) -> None:
        if self.ascii_only:
            cell, bit = row * self.width + column, 1
        else:
            cell, bit = (row >> 2) * self.width + (column >> 1), DOTS[column & 1][row & 3]
        if self._roles[cell] == role:
            self._bits[cell] |= bit
        else:
            self._bits[cell], self._roles[cell] = bit, role

    def dots(self, column: int, rows: Iterable[int], role: str) -> None:
        """Dots below one another."""
        if self.ascii_only:
            for row in rows:
                self.dot(column, row, role)
            return
        bits, roles, width, place, column_bits = self._bits, self._roles, self.width, column >> 1, DOTS[column & 1]
        for row in rows:  # a thousand of them in a chart: without calls
            cell = (row >> 2) * width + place
            if roles[cell] == role:
                bits[cell] |= column_bits[row & 3]
            else:
                bits[cell], roles[cell] = column_bits[row & 3], role

    def join(self, start: tuple[int, int], end: tuple[int, int], role: str) -> None:
        """Dots on the straight line between two dots."""
        (x0, y0), (x1, y1) = start, end
        length = max(abs(x1 - x0), abs(y1 - y0))
        for part in range(1, length):
            self.dot(round(x0 + (x1 - x0) * part / length), round(y0 + (y1 - y0) * part / length), role)

    def dotted(self, row: int, role: str) -> None:
        """A dotted line across."""
        if 0 <= row < self.dot_rows:
            for column in range(0, self.dot_columns, 2 if self.ascii_only else 3):
                self.dot(column, row, role)

    def sign(self, column: int, row: int, sign: str, role: str) -> None:
        """A character in the cell of a dot."""
        cell = row * self.width + column if self.ascii_only else (row >> 2) * self.width + (column >> 1)
        self._signs[cell] = (sign, role)

    def rows(self) -> list[Row]:
        return [self._row(number * self.width) for number in range(self.height)]

    def _row(self, start: int) -> Row:
        """Neighbours of one role together; blanks go with what stands before them."""
        parts: Row = []
        text, current = "", ""
        for cell in range(start, start + self.width):
            bits = self._bits[cell]
            if not bits and cell not in self._signs:
                text += " "
                continue
            sign, role = self._signs.get(cell) or ("", self._roles[cell])
            if role != current and text:
                parts.append((text, current))
                text = ""
            current = role
            text += sign or (ASCII.get(role, "*") if self.ascii_only else chr(BRAILLE | bits))
        return [*parts, (text, current)] if text else parts


def framed(
    rows: Sequence[Row], labels: dict[int, str], bottom: dict[int, str], width: int, right: str = ""
) -> list[Row]:
    """Rows with y labels (row -> text) to their left and x labels (column of the picture -> text) below."""
    margin = max((len(text) for text in labels.values()), default=0) + 1
    framed_rows: list[Row] = [
        [(f"{labels.get(number, ''):>{margin - 1}} ", "axis"), *row] for number, row in enumerate(rows)
    ]
    line = [" "] * (width - margin)
    for column, text in bottom.items():
        if column >= 0:
            line[column : column + len(text)] = text
    below = (" " * margin + "".join(line)[: width - margin]).ljust(width)
    framed_rows.append([(below[: width - len(right)] + right if right else below, "axis")])
    return framed_rows


def y_labels(scale: Scale, height: int, spread: int = 3) -> dict[int, str]:
    """Row -> label: the ends, and round figures between them where there is room."""
    found = {0: label(scale.high), height - 1: label(scale.low)}
    for value in scale.ticks(height // (spread + 1)) if height > 2 * spread else []:
        row = round((1 - scale.share(value)) * (height - 1))
        if all(abs(row - other) >= spread for other in found):
            found[row] = label(value)
    return found


def x_labels(scale: Scale, width: int, room: int = 12) -> dict[int, str]:
    """Column -> label: the ends, and round figures between them where there is room. Steps are whole numbers."""

    def text(value: float) -> str:
        return str(int(value)) if value == int(value) else label(value)

    first, last = text(scale.low), text(scale.high)
    if width < len(first) + len(last) + 1:
        return {}
    found = {0: first, width - len(last): last}
    for value in scale.ticks(width // room):
        words = text(value)
        column = round(scale.share(value) * (width - 1)) - len(words) // 2
        if all(column + len(words) + 2 <= place or column >= place + len(other) + 2 for place, other in found.items()):
            found[column] = words
    return found


def margin_of(labels: dict[int, str]) -> int:
    """Cells that ``framed`` puts to the left of a picture."""
    return max((len(text) for text in labels.values()), default=0) + 1
