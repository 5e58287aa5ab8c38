"""A picture paints its rows itself: what comes out is what Textual would have painted."""

from __future__ import annotations

import asyncio

import pytest
from textual.app import App, ComposeResult
from textual.geometry import Region
from textual.widget import Widget

from tui.themes import chart_variables
from tui.view.gauges import Chart as ChartData
from tui.view.gauges import Limits
from tui.widgets.chart import Chart

PLAIN, DECORATED = "", "border: round red; padding: 1 2;"


class One(App[None]):
    def __init__(self, css: str, colours: bool) -> None:
        self.CSS = f"Chart {{ {css} }}"
        super().__init__(ansi_color=not colours)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return chart_variables(self.current_theme)

    def compose(self) -> ComposeResult:
        yield Chart(id="chart")


def texts(strips):
    """Cells with their styles, whatever segments they are cut into."""
    return [[(sign, segment.style) for segment in strip for sign in segment.text] for strip in strips]


@pytest.mark.parametrize("css", [PLAIN, DECORATED, "tint: red 30%;", "opacity: 50%;", "text-opacity: 60%;"])
@pytest.mark.parametrize("colours", [True, False])
@pytest.mark.parametrize("no_color", [False, True])
def test_the_rows_are_those_that_textual_would_have_painted(css, colours, no_color, monkeypatch):
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")

    async def session() -> None:
        app = One(css, colours)
        async with app.run_test(size=(60, 16)) as pilot:
            chart = app.query_one(Chart)
            values = [1 / (step + 1) for step in range(300)]
            chart.show(ChartData("loss", "Verlust 損失", list(range(300)), values, Limits(maximum=0.1)))
            await pilot.pause()
            size = chart.outer_size
            for crop in (Region(0, 0, *size), Region(5, 2, 20, 7), Region(0, size.height - 1, size.width, 1)):
                found, wanted = chart.render_lines(crop), Widget.render_lines(chart, crop)
                assert len(found) == crop.height
                assert texts(found) == texts(wanted)

    asyncio.run(session())
