"""A line chart as rows of text: braille (two by four dots a cell) or ASCII. Pure, so that it can be timed and tested."""

from __future__ import annotations

import math
from collections.abc import Sequence

BRAILLE = 0x2800
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""Bits of the left and the right column of a braille cell, from top to bottom."""


def plot(
    steps: Sequence[int],
    values: Sequence[float],
    width: int,
    height: int,
    *,
    targets: Sequence[float] = (),
    ascii_only: bool = False,
) -> list[str]:
    """``height`` rows of ``width`` cells: the line over its y labels and an x axis with the first and last step.

    Values that are not finite are marked with ``!`` at the top. A target is a dotted line across.
    """
    if width < 8 or height < 3:
        return [" " * width] * height
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        empty = "nothing yet" if not values else "not a number"
        rows = [" " * width for _ in range(height)]
        rows[height // 2] = empty.center(width)[:width]
        return rows
    low, high = _range(finite, targets)
    labels = [_label(high), _label(low)]
    margin = max(map(len, labels)) + 1
    area_width, area_height = width - margin, height - 1
    canvas = _Canvas(area_width, area_height, ascii_only)
    for target in targets:
        canvas.dotted(_row(target, low, high, canvas.dot_rows))
    _line(canvas, steps, values, low, high)
    rows = []
    for index, text in enumerate(canvas.rows()):
        label = labels[0] if index == 0 else labels[1] if index == area_height - 1 else ""
        rows.append(f"{label:>{margin - 1}} {text}")
    first, last = str(steps[0]), str(steps[-1])
    rows.append(" " * margin + first + last.rjust(area_width - len(first)) if area_width > len(first) else " " * width)
    return [row[:width].ljust(width) for row in rows]


def _range(finite: Sequence[float], targets: Sequence[float]) -> tuple[float, float]:
    low, high = min(finite), max(finite)
    for target in targets:  # a target is shown unless it would flatten the line
        span = high - low
        if span == 0 or (low - 2 * span) <= target <= (high + 2 * span):
            low, high = min(low, target), max(high, target)
    if high == low:
        pad = abs(high) * 0.1 or 1.0
        low, high = low - pad, high + pad
    return low, high


def _label(value: float) -> str:
    text = f"{value:.3g}"
    return text if len(text) <= 7 else f"{value:.1e}"


def _row(value: float, low: float, high: float, rows: int) -> int:
    """Dot row of a value, 0 at the top; -1 outside."""
    place = (high - value) / (high - low)
    return round(place * (rows - 1)) if 0 <= place <= 1 else -1


def _line(canvas: _Canvas, steps: Sequence[int], values: Sequence[float], low: float, high: float) -> None:
    first, last = steps[0], steps[-1]
    across = max(1, last - first)
    columns: dict[int, list[float]] = {}
    for step, value in zip(steps, values, strict=True):
        column = (step - first) * (canvas.dot_columns - 1) // across
        columns.setdefault(column, []).append(value)
    before: tuple[int, int] | None = None
    for column, found in sorted(columns.items()):
        finite = [value for value in found if math.isfinite(value)]
        if len(finite) < len(found):
            canvas.mark(column)
        if not finite:
            before = None
            continue
        row = _row(math.fsum(finite) / len(finite), low, high, canvas.dot_rows)
        canvas.dot(column, row)
        if before is not None:
            canvas.join(before, (column, row))
        before = (column, row)


class _Canvas:
    """Dots on cells. In ASCII a cell is one dot wide and high."""

    def __init__(self, width: int, height: int, ascii_only: bool) -> None:
        self.width, self.height, self.ascii_only = width, height, ascii_only
        self.dot_columns = width if ascii_only else 2 * width
        self.dot_rows = height if ascii_only else 4 * height
        self._cells = [[0] * width for _ in range(height)]
        self._marks: set[int] = set()

    def dot(self, column: int, row: int) -> None:
        if self.ascii_only:
            self._cells[row][column] = 2
        else:
            self._cells[row // 4][column // 2] |= DOTS[column % 2][row % 4]

    def join(self, start: tuple[int, int], end: tuple[int, int]) -> None:
        """Dots on the straight line between two dots."""
        (x0, y0), (x1, y1) = start, end
        length = max(abs(x1 - x0), abs(y1 - y0))
        for part in range(1, length):
            self.dot(round(x0 + (x1 - x0) * part / length), round(y0 + (y1 - y0) * part / length))

    def dotted(self, row: int) -> None:
        if row < 0:
            return
        for column in range(0, self.dot_columns, 2 if self.ascii_only else 3):
            if self.ascii_only:
                self._cells[row][column] = self._cells[row][column] or 1
            else:
                self.dot(column, row)

    def mark(self, column: int) -> None:
        self._marks.add(column if self.ascii_only else column // 2)

    def rows(self) -> list[str]:
        signs = " -*"
        texts = []
        for number, cells in enumerate(self._cells):
            if self.ascii_only:
                text = "".join(signs[cell] for cell in cells)
            else:
                text = "".join(chr(BRAILLE | cell) if cell else " " for cell in cells)
            if number == 0 and self._marks:
                text = "".join("!" if place in self._marks else sign for place, sign in enumerate(text))
            texts.append(text)
        return texts


def bar(share: float, width: int, target: float | None = None, *, ascii_only: bool = False) -> str:
    """A bar of ``width`` cells filled to ``share`` of it, with a mark at ``target`` (also a share)."""
    full, empty, mark = ("#", ".", "|") if ascii_only else ("█", "░", "┃")
    filled = round(min(1.0, max(0.0, share)) * width)
    cells = [full] * filled + [empty] * (width - filled)
    if target is not None and 0 <= target <= 1 and width:
        cells[min(width - 1, round(target * (width - 1)))] = mark
    return "".join(cells)
