"""Look a dataset over, with nothing else in mind: what it is, what is wrong with it, which methods it serves."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from tui.screens.wizard.page import STYLES
from tui.widgets.data_panel import DataPanel
from tui.widgets.footer import Footer
from tui.wizard.state import Source


class DataScreen(Screen[None]):
    CSS_PATH = STYLES
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "back", "runs")]

    def __init__(self, path: str = "") -> None:
        super().__init__()
        self._path = path

    def compose(self) -> ComposeResult:
        words = ("  what it is, what is wrong with it, which methods it serves", "dim")
        yield Static(Content.assemble(("data", "bold"), words), id="trail")
        yield DataPanel(Source(self._path))
        yield Footer()

    def action_back(self) -> None:
        self.app.pop_screen()
