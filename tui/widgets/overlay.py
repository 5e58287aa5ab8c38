"""The same gauge of several runs in one chart: a colour and a sign for each."""

from __future__ import annotations

from tui.view.canvas import Row
from tui.view.comparison import MARKERS, Overlay
from tui.view.plot import Line, plot
from tui.view.series import moving_average
from tui.widgets.chart import ChartStyle
from tui.widgets.picture import Picture
from tui.words import ascii_words


class OverlayChart(Picture):
    def __init__(self, ascii_only: bool = False, **options: object) -> None:
        super().__init__(ascii_only, **options)
        self._data: Overlay | None = None
        self._style = ChartStyle()
        self._words = ""

    def show(self, data: Overlay, style: ChartStyle, words: str) -> None:
        if (data, style, words) != (self._data, self._style, self._words):
            self._data, self._style, self._words = data, style, words
            self.changed()

    def draw(self, width: int, height: int) -> list[Row]:
        data = self._data
        if data is None:
            return []
        lines = [
            Line(
                course.steps,
                moving_average(course.values, self._style.smoothing) if self._style.smoothing else course.values,
                f"series-{course.run}",
                marker=MARKERS[course.run][1 if self.ascii_only else 0],
            )
            for course in data.courses
        ]
        target = f"  target {data.target}" if str(data.target) else ""
        title = f"{data.stage}: {data.title}{target}"
        rows = plot(
            lines, width, max(0, height - 1), targets=data.target.numbers(), log=self._style.log,
            ascii_only=self.ascii_only,
        )  # fmt: skip
        plain = [ascii_words(text) if self.ascii_only else text for text in (title, self._words)]
        return [[(plain[0], "title"), (plain[1], "axis")], *rows]
