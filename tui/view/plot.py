"""Line charts as rows of text: braille (two by four dots a cell) or ASCII. Pure, so that they can be timed and tested."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from tui.view.canvas import Canvas, Row, Scale, framed, margin_of, x_labels, y_labels


@dataclass(frozen=True)
class Line:
    """One line of a chart. ``marker`` is a sign put along it now and then, so that lines differ without colours."""

    steps: Sequence[int]
    values: Sequence[float]
    role: str = "line"
    joined: bool = True
    """False: a dot for each value, such as raw values behind their average."""
    marker: str = ""


def plot(
    lines: Sequence[Line],
    width: int,
    height: int,
    *,
    targets: Sequence[float] = (),
    log: bool = False,
    ascii_only: bool = False,
    span: tuple[int, int] | None = None,
) -> list[Row]:
    """``height`` rows of ``width`` cells: the lines over their y labels and an x axis of steps (``span``, or what there is).

    Later lines are drawn over earlier ones. Values that are not finite are gaps, marked with ``!`` at the top; so are,
    without a mark, those that a logarithmic axis cannot show. A target is a dotted line across.
    """
    if width < 8 or height < 3:
        return [[(" " * width, "")]] * height
    scale = _scale([line.values for line in lines], targets, log)
    if scale is None:
        return _words(_why_empty(lines, log), width, height)
    labels = y_labels(scale, height - 1)
    across, down = width - margin_of(labels), height - 1
    first, last = span or (
        min(line.steps[0] for line in lines if line.steps),
        max(line.steps[-1] for line in lines if line.steps),
    )
    canvas = Canvas(across, down, ascii_only)
    for target in targets:
        share = scale.share(target)
        if 0 <= share <= 1:
            canvas.dotted(_row(share, canvas), "target")
    bad: set[int] = set()
    columns: dict[int, Columns] = {}  # raw values and their average share their steps
    for number, line in enumerate(lines):
        if not line.steps:
            continue
        if id(line.steps) not in columns:
            columns[id(line.steps)] = _columns(line.steps, canvas, first, max(last, first + 1))
        _draw(canvas, line, columns[id(line.steps)], scale, bad)
        _mark(canvas, line, scale, first, max(last, first + 1), number, len(lines))
    for column in bad:
        canvas.sign(column, 0, "!", "bad")
    return framed(canvas.rows(), labels, x_labels(Scale(first, max(last, first + 1)), across), width)


def _words(text: str, width: int, height: int) -> list[Row]:
    rows: list[Row] = [[(" " * width, "")] for _ in range(height)]
    rows[height // 2] = [(text.center(width)[:width], "axis")]
    return rows


def _why_empty(lines: Sequence[Line], log: bool) -> str:
    values = [value for line in lines for value in line.values]
    if not values:
        return "nothing yet"
    return "nothing above 0 (log scale)" if log and any(map(math.isfinite, values)) else "not a number"


def _scale(rows: Sequence[Sequence[float]], targets: Sequence[float], log: bool) -> Scale | None:
    """Room for the values of all rows, and for a target unless it would flatten the line."""
    ends: list[float] = []
    for row in rows:
        # A finite sum has finite parts; one that is not is looked into.
        shown = row if math.isfinite(sum(row)) else [value for value in row if math.isfinite(value)]
        shown = [value for value in shown if value > 0] if log else shown
        if shown:
            ends += (min(shown), max(shown))
    if not ends:
        return None
    low, high = min(ends), max(ends)
    for target in targets:
        if log:
            near = target > 0 and (high == low or low / (high / low) ** 2 <= target <= high * (high / low) ** 2)
        else:
            near = high == low or low - 2 * (high - low) <= target <= high + 2 * (high - low)
        if near:
            low, high = min(low, target), max(high, target)
    if high == low:
        if log:
            return Scale(low / 2, high * 2, True)
        pad = abs(high) * 0.1 or 1.0
        low, high = low - pad, high + pad
    return Scale(low, high, log)


def _row(share: float, canvas: Canvas) -> int:
    return round((1 - share) * (canvas.dot_rows - 1))


Columns = list[tuple[int, int, int]]
"""(dot column, begin, end) of the values that share it, from left to right."""


def _columns(steps: Sequence[int], canvas: Canvas, first: int, last: int) -> Columns:
    """Where the values of each dot column stand among the (rising) ``steps``; columns without any are left out."""
    factor = (canvas.dot_columns - 1) / (last - first)
    begin, end = bisect_left(steps, first), bisect_right(steps, last)
    found = []
    while begin < end:
        column = int((steps[begin] - first) * factor)
        stop = bisect_left(steps, first + (column + 1) / factor, begin + 1, end) if factor else end
        while stop < end and int((steps[stop] - first) * factor) == column:  # as the division rounds
            stop += 1
        while stop > begin + 1 and int((steps[stop - 1] - first) * factor) != column:
            stop -= 1
        found.append((column, begin, stop))
        begin = stop
    return found


def _draw(canvas: Canvas, line: Line, columns: Columns, scale: Scale, bad: set[int]) -> None:
    """A dot for each value, or for each column the mean of its values, joined to the next. A gap joins nothing."""
    values, role = line.values, line.role
    whole = not scale.log and math.isfinite(sum(values))  # all can be shown
    slope, high = (canvas.dot_rows - 1) / (scale.high - scale.low), scale.high
    before: tuple[int, int] | None = None
    if whole and not line.joined:  # a thousand values, all at once
        rows_of_all = [int((high - value) * slope + 0.5) for value in values]
        for column, begin, end in columns:
            canvas.dots(column, set(rows_of_all[begin:end]), role)
        return
    for column, begin, end in columns:
        shown = values[begin:end]
        if not whole:
            finite = [value for value in shown if math.isfinite(value)]
            if len(finite) < len(shown):
                bad.add(column)
            shown = [value for value in finite if value > 0] if scale.log else finite
            if not shown:
                before = None
                continue
        if not line.joined:
            canvas.dots(column, {_row(scale.share(value), canvas) for value in shown}, role)
            continue
        here = (column, _row(scale.share(sum(shown) / len(shown)), canvas))
        canvas.dot(*here, role)
        if before is not None:
            canvas.join(before, here, role)
        before = here


def _mark(canvas: Canvas, line: Line, scale: Scale, first: int, last: int, number: int, of: int) -> None:
    """The marker at four places along the line, each line's at others, and at its end."""
    if not line.marker:
        return
    shown = [
        (step, value)
        for step, value in zip(line.steps, line.values, strict=True)
        if first <= step <= last and 0 <= scale.share(value) <= 1  # false for NaN
    ]
    wanted = [first + (last - first) * (place + (number + 1) / (of + 1)) / 4 for place in range(4)]
    places = (
        {min(range(len(shown)), key=lambda index: abs(shown[index][0] - step)) for step in wanted} if shown else set()
    )
    for index in {*places, len(shown) - 1} if shown else set():
        step, value = shown[index]
        column = (step - first) * (canvas.dot_columns - 1) // (last - first)
        canvas.sign(column, _row(scale.share(value), canvas), line.marker, line.role)


def bar(share: float, width: int, target: float | None = None, *, ascii_only: bool = False) -> str:
    """A bar of ``width`` cells filled to ``share`` of it, with a mark at ``target`` (also a share)."""
    full, empty, mark = ("#", ".", "|") if ascii_only else ("█", "░", "┃")
    filled = round(min(1.0, max(0.0, share)) * width)
    cells = [full] * filled + [empty] * (width - filled)
    if target is not None and 0 <= target <= 1 and width:
        cells[min(width - 1, round(target * (width - 1)))] = mark
    return "".join(cells)
