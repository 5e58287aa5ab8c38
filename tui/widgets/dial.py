"""A dial on one line: what it is, where it stands, turned with the arrow keys."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.events import Click
from textual.message import Message
from textual.widget import Widget

from engine.chat.messages import DialState

NAME, VALUE = 13, 7
STEP, FINE = 0.1, 0.01


class DialBar(Widget, can_focus=True):
    """``warm          ├────────┼───●────┤  +0.70``"""

    DEFAULT_CSS = """
    DialBar { height: 1; width: 1fr; padding: 0 1; }
    DialBar:focus { background: $boost; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", f"turn(-{STEP})", "less"),
        Binding("right", f"turn({STEP})", "more"),
        Binding("shift+left", f"turn(-{FINE})", "a little less", show=False),
        Binding("shift+right", f"turn({FINE})", "a little more", show=False),
        Binding("0,home", "to(0.0)", "zero"),
        Binding("1,end", "to(1.0)", "one"),
        Binding("up", "app.focus_previous", "dial before", show=False),
        Binding("down,enter", "app.focus_next", "next dial", show=False),
    ]

    class Turned(Message):
        def __init__(self, name: str, value: float) -> None:
            super().__init__()
            self.name, self.value = name, value

    def __init__(self, dial: DialState, ascii_only: bool = False) -> None:
        super().__init__()
        self.dial, self.ascii_only = dial, ascii_only

    def show(self, value: float) -> None:
        self.dial.value = value
        self.refresh()

    def action_turn(self, by: float) -> None:
        self._to(self.dial.value + by)

    def action_to(self, value: float) -> None:
        self._to(value)

    def on_click(self, event: Click) -> None:
        width = self._width()
        place = event.x - 1 - NAME - 1
        if 0 <= place < width:
            self._to(self.dial.low + (self.dial.high - self.dial.low) * place / max(1, width - 1))

    def _to(self, value: float) -> None:
        value = round(min(self.dial.high, max(self.dial.low, value)), 2) + 0.0
        if value != self.dial.value:
            self.show(value)
            self.post_message(self.Turned(self.dial.name, value))

    def _width(self) -> int:
        return max(4, self.size.width - NAME - VALUE - 2)

    def render(self) -> Content:
        dial, width = self.dial, self._width()
        line, zero, knob = ("-", "+", "O") if self.ascii_only else ("─", "┼", "●")
        row = [line] * width
        scale = (width - 1) / (dial.high - dial.low)
        if dial.low < 0:
            row[round(-dial.low * scale)] = zero
        place = round((dial.value - dial.low) * scale)
        row[place] = knob
        value = f"{dial.value:+.2f}" if dial.low < 0 else f"{dial.value:.2f}"
        style = "$accent" if dial.value else "dim"
        return Content.assemble(
            (f"{dial.name[: NAME - 1]:<{NAME}}", "bold" if dial.value else ""),
            ("".join(row[:place]), "dim"),
            (row[place], f"bold {style}"),
            ("".join(row[place + 1 :]), "dim"),
            (f"{value:>{VALUE}}", style),
        )
