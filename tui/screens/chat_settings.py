"""System prompt and sampling of a chat, in one form."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from engine.chat.settings import KINDS, Settings, changed
from recipes.errors import InputError
from tui.screens.help import HELP_KEY
from tui.widgets.footer import Footer

FIELDS = {
    "system": "System prompt",
    "temperature": "Temperature",
    "top_p": "Top-p",
    "max_tokens": "Most tokens",
    "seed": "Seed",
}


class ChatSettings(ModalScreen[Settings | None]):
    """Enter keeps what is in the form, Escape leaves things as they were."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "keep", "keep", priority=True),
        Binding("escape", "leave", "leave"),
        Binding("down", "app.focus_next", "next", show=False),
        Binding("up", "app.focus_previous", "before", show=False),
        HELP_KEY,
    ]

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._settings = settings

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help"):
            yield Static("How replies are drawn", classes="form--title")
            for name, label in FIELDS.items():
                with Horizontal(classes="form--row"):
                    yield Label(f"{label:<14}")
                    value = getattr(self._settings, name)
                    yield Input(str(value), id=f"field-{name}", compact=True, placeholder=KINDS[name][2])
            yield Static("", id="form-error", markup=False)
        yield Footer()

    def action_keep(self) -> None:
        settings = self._settings
        for name in FIELDS:
            try:
                settings = changed(settings, name, self.query_one(f"#field-{name}", Input).value)
            except InputError as error:
                self.query_one("#form-error", Static).update(str(error))
                self.query_one(f"#field-{name}", Input).focus()
                return
        self.dismiss(settings)

    def action_leave(self) -> None:
        self.dismiss(None)
