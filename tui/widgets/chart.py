"""A chart of one gauge over the steps: the raw values, their average in front of them, the target across."""

from __future__ import annotations

from dataclasses import dataclass

from tui.view.canvas import Row
from tui.view.gauges import Chart as ChartData
from tui.view.plot import Line, plot
from tui.view.series import moving_average
from tui.widgets.picture import Picture
from tui.words import ascii_words

SMOOTHINGS = (0.0, 0.6, 0.9, 0.98)
"""Weights of the moving average to go through; 0 is none."""


@dataclass(frozen=True)
class ChartStyle:
    smoothing: float = 0.6
    log: bool = False

    def smoother(self) -> ChartStyle:
        place = SMOOTHINGS.index(self.smoothing)
        return ChartStyle(SMOOTHINGS[(place + 1) % len(SMOOTHINGS)], self.log)

    def words(self) -> str:
        smooth = f"average {self.smoothing:g}, raw as dots" if self.smoothing else "raw"
        return f"{smooth}, {'log' if self.log else 'linear'} scale"


class Chart(Picture):
    def __init__(self, ascii_only: bool = False, **options: object) -> None:
        super().__init__(ascii_only, **options)
        self._data: ChartData | None = None
        self._style = ChartStyle()
        self._span: tuple[int, int] | None = None
        self.titled = True

    def show(self, data: ChartData, style: ChartStyle | None = None, span: tuple[int, int] | None = None) -> None:
        """``span``: the steps that the axis covers; default: those there are."""
        style = style or self._style
        if (data, style, span) != (self._data, self._style, self._span):
            self._data, self._style, self._span = data, style, span
            self.changed()

    def draw(self, width: int, height: int) -> list[Row]:
        data = self._data
        if data is None:
            return []
        target = str(data.target)
        title = f"{data.title}  target {target}" if target else data.title
        title = ascii_words(title) if self.ascii_only else title
        body = plot(
            lines_of(data, self._style), width, max(0, height - self.titled), targets=data.target.numbers(),
            log=self._style.log, ascii_only=self.ascii_only, span=self._span,
        )  # fmt: skip
        return [[(title[:width], "title")], *body] if self.titled else body


def lines_of(data: ChartData, style: ChartStyle) -> list[Line]:
    if not style.smoothing:
        return [Line(data.steps, data.values)]
    smooth = moving_average(data.values, style.smoothing)
    return [Line(data.steps, data.values, "raw", joined=False), Line(data.steps, smooth)]
