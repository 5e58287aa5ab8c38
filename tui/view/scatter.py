"""Points in a square of figures, with lines through it: the Pareto front of a search, a reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tui.view.canvas import Canvas, Row, Scale, framed, margin_of, x_labels, y_labels


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    sign: str
    ascii_sign: str
    role: str


def scatter(
    points: Sequence[Point],
    width: int,
    height: int,
    x: Scale,
    y: Scale,
    *,
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]] = (),
    ascii_only: bool = False,
) -> list[Row]:
    """``height`` rows of ``width`` cells. ``lines``: (role, corners), drawn below the points; later points win a cell.

    Points outside of the scales stand at their edge.
    """
    labels = y_labels(y, height - 1)
    across, down = width - margin_of(labels), height - 1
    if across < 8 or down < 3:
        return [[(" " * width, "")]] * height
    canvas = Canvas(across, down, ascii_only)

    def dot(at: tuple[float, float]) -> tuple[int, int]:
        right, up = (min(1.0, max(0.0, scale.share(value))) for scale, value in zip((x, y), at, strict=True))
        return round(right * (canvas.dot_columns - 1)), round((1 - up) * (canvas.dot_rows - 1))

    for role, corners in lines:
        for start, end in zip(corners, corners[1:], strict=False):
            canvas.dot(*dot(start), role)
            canvas.join(dot(start), dot(end), role)
            canvas.dot(*dot(end), role)
    for point in points:
        canvas.sign(*dot((point.x, point.y)), point.ascii_sign if ascii_only else point.sign, point.role)
    return framed(canvas.rows(), labels, x_labels(x, across), width)
