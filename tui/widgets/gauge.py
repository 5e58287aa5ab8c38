"""A live figure against its target, on one line."""

from __future__ import annotations

import math

from textual.content import Content
from textual.widget import Widget

from engine.report import figure
from tui.view.plot import bar
from tui.view.run_view import Gauge as GaugeData
from tui.words import ascii_words

ARROWS = {"rising": ("↑", "^"), "falling": ("↓", "v"), "steady": ("→", "="), "": (" ", " ")}
SIGNS = {True: ("✓", "+"), False: ("✗", "!"), None: (" ", " ")}
LABEL, VALUE, TARGET = 7, 9, 10


class Gauge(Widget):
    """``loss   0.4821 ↓ ████░░░┃░░  falling ✓``: the mark in the bar is the target."""

    DEFAULT_CSS = "Gauge { height: 1; width: 1fr; }"

    def __init__(self, ascii_only: bool = False, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.ascii_only = ascii_only
        self._data: GaugeData | None = None

    def show(self, data: GaugeData) -> None:
        if data != self._data:
            self._data = data
            self.refresh()

    def render(self) -> Content:
        data = self._data
        if data is None:
            return Content("")
        if data.value is None:
            return Content.assemble(
                (f"{data.label:<{LABEL}}", "bold"),
                (f"{'–' if not self.ascii_only else '-':>{VALUE}}  {data.note}", "dim"),
            )
        pick = 1 if self.ascii_only else 0
        mark = data.target.maximum if data.target.maximum is not None else data.target.minimum
        target = str(data.target)
        if self.ascii_only:
            target = ascii_words(target)
        room = self.size.width - LABEL - VALUE - 3 - TARGET - 3
        share = data.value / data.scale if math.isfinite(data.value) else 1.0
        colour = {True: "success", False: "error", None: "accent"}[data.good]
        style, text_style = f"${colour}", f"$text-{colour}"
        return Content.assemble(
            (f"{data.label:<{LABEL}}", "bold"),
            f"{figure(data.value):>{VALUE}} ",
            (f"{ARROWS[data.trend][pick]} ", text_style),
            (bar(share, max(4, room), None if mark is None else mark / data.scale, ascii_only=self.ascii_only), style),
            f" {target:>{TARGET}} ",
            (SIGNS[data.good][pick], f"bold {text_style}"),
        )
