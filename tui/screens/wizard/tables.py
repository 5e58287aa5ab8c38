"""The method comparison's tables and chart, a key away from every page that chooses a method."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import ScrollableContainer
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from recipes.comparison import chart_lines, tables
from tui.commands.methods import table_lines, use_case_table
from tui.screens.wizard.page import STYLES
from tui.widgets.footer import Footer
from tui.words import ascii_words

SCROLLS = (("down", 0, 1), ("up", 0, -1), ("pagedown", 0, 12), ("pageup", 0, -12))
"""Key -> columns and rows that the table moves; the arrows to the sides turn the page."""


class Tables(Screen[None]):
    """One table at a time; left and right turn the page."""

    CSS_PATH = STYLES
    BINDINGS = [
        Binding("escape,t,q", "close", "back"),
        Binding("right,space,n", "turn(1)", "next", key_display="→"),
        Binding("left,p", "turn(-1)", "before", key_display="←"),
        *(Binding(key, f"scroll({x}, {y})", show=False) for key, x, y in SCROLLS),
        Binding("greater_than_sign", "scroll(20, 0)", "aside", key_display="< >"),
        Binding("less_than_sign", "scroll(-20, 0)", show=False),
    ]

    def __init__(self, at: int = 0) -> None:
        super().__init__()
        self.at = at

    def compose(self) -> ComposeResult:
        yield Static("", id="table-name", markup=False)
        with ScrollableContainer(id="table-scroll", can_focus=False):
            yield Static("", id="table", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self._draw()

    def on_resize(self) -> None:
        self._draw()

    def _draw(self) -> None:
        known = [*tables(), use_case_table()]
        plain = bool(self.app.ascii_only)  # type: ignore[attr-defined]
        names = ["Complexity and capability", *(table.title for table in known)]
        self.at %= len(names)
        if self.at == 0:
            lines = ["What stands higher can do more;", "what stands further right is harder to get right.", ""]
            lines += chart_lines(ascii_only=plain)
        else:
            lines = table_lines(known[self.at - 1], self.app.size.width - 4)[2:]
        text = "\n".join(lines)
        self.query_one("#table", Static).update(ascii_words(text) if plain else text)
        self.query_one("#table-name", Static).update(
            Content.assemble((names[self.at], "bold"), (f"   {self.at + 1} of {len(names)}", "dim"))
        )
        self.query_one("#table-scroll", ScrollableContainer).scroll_home(animate=False)

    def action_turn(self, by: int) -> None:
        self.at += by
        self._draw()

    def action_scroll(self, x: int, y: int) -> None:
        self.query_one("#table-scroll", ScrollableContainer).scroll_relative(x, y, animate=False)

    def action_close(self) -> None:
        self.app.pop_screen()
