"""A chart of one gauge over the steps."""

from __future__ import annotations

from rich.segment import Segment
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget

from tui.view.plot import plot
from tui.view.run_view import Chart as ChartData
from tui.words import ascii_words


class Chart(Widget):
    """Title, line, axes. Rows are drawn once per change of data or size, as one segment each."""

    DEFAULT_CSS = "Chart { height: 1fr; width: 1fr; }"

    def __init__(self, ascii_only: bool = False, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.ascii_only = ascii_only
        self._data: ChartData | None = None
        self._rows: list[str] = []
        self._drawn: tuple[ChartData | None, Size] | None = None

    def show(self, data: ChartData) -> None:
        if data != self._data:
            self._data = data
            self.refresh()

    def render_line(self, y: int) -> Strip:
        if self._drawn is None or self._drawn != (self._data, self.size):
            self._drawn = (self._data, self.size)
            self._rows = self._draw()
        row = self._rows[y] if y < len(self._rows) else ""
        style = self.get_component_rich_style("chart--title") if y == 0 else self.rich_style
        return Strip([Segment(row.ljust(self.size.width), style)], self.size.width)

    COMPONENT_CLASSES = {"chart--title"}

    def _draw(self) -> list[str]:
        width, height = self.size.width, self.size.height
        data = self._data
        if data is None:
            return [" " * width] * height
        target = str(data.target)
        title = f"{data.title}  target {target}" if target else data.title
        title = ascii_words(title) if self.ascii_only else title
        limits = [limit for limit in (data.target.minimum, data.target.maximum) if limit is not None]
        body = plot(data.steps, data.values, width, max(0, height - 1), targets=limits, ascii_only=self.ascii_only)
        return [title[:width], *body]
