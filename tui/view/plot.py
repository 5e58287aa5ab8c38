"""Line charts as rows of text: braille (two by four dots a cell) or ASCII. Pure, so that they can be timed and tested."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
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
    scale = _scale([value for line in lines for value in line.values], targets, log)
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
    columns: dict[int, list[int]] = {}  # raw values and their average share their steps
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


def _scale(values: Sequence[float], targets: Sequence[float], log: bool) -> Scale | None:
    """Room for the values, and for a target unless it would flatten the line."""
    shown = values if all(map(math.isfinite, values)) else [value for value in values if math.isfinite(value)]
    shown = [value for value in shown if value > 0] if log else shown
    if not shown:
        return None
    low, high = min(shown), max(shown)
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


def _columns(steps: Sequence[int], canvas: Canvas, first: int, last: int) -> list[int]:
    """The dot column of each step; -1 for those that are not shown."""
    factor = (canvas.dot_columns - 1) / (last - first)
    return [int((step - first) * factor) if first <= step <= last else -1 for step in steps]


def _draw(canvas: Canvas, line: Line, columns: list[int], scale: Scale, bad: set[int]) -> None:
    """A dot for each value, or for each column the mean of its values, joined to the next. A gap joins nothing."""
    gaps: set[int] = set()
    pairs: Iterable[tuple[int, float]] = zip(columns, line.values, strict=True)
    if scale.log or min(columns) < 0 or not all(map(math.isfinite, line.values)):
        known = [(column, value) for column, value in pairs if column >= 0]
        bad.update(column for column, value in known if not math.isfinite(value))
        pairs = [(column, value) for column, value in known if math.isfinite(value) and (value > 0 or not scale.log)]
        gaps = {column for column, _ in known} - {column for column, _ in pairs}
    if not line.joined:
        if scale.log:
            places = {(column, _row(scale.share(value), canvas)) for column, value in pairs}
        else:  # a thousand of them: without calls
            slope, high = (canvas.dot_rows - 1) / (scale.high - scale.low), scale.high
            places = {(column, int((high - value) * slope + 0.5)) for column, value in pairs}
        for column, row in places:
            canvas.dot(column, row, line.role)
        return
    sums, counts = [0.0] * canvas.dot_columns, [0] * canvas.dot_columns
    for column, value in pairs:
        sums[column] += value
        counts[column] += 1
    before: tuple[int, int] | None = None
    for column, count in enumerate(counts):
        if not count:
            before = None if column in gaps else before
            continue
        here = (column, _row(scale.share(sums[column] / count), canvas))
        canvas.dot(*here, line.role)
        if before is not None:
            canvas.join(before, here, line.role)
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
