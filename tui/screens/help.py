"""What the keys do and what the words on the screen mean."""

from __future__ import annotations

from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

HELP_KEY = Binding("question_mark,f1", "app.help_anyway", "help", show=False)
"""For dialogs, which the app's own keys do not reach. Where one types, ? is a letter and F1 helps."""
NAMED = {
    "escape": "Esc",
    "question_mark": "?",
    "pagedown": "PgDn",
    "pageup": "PgUp",
    "space": "Space",
    "enter": "Enter",
}
KEYS_WIDE = 11
EVERYWHERE = ("app.focus_next", "app.focus_previous", "screen.copy_text", "app.help_quit")
"""Textual's own, which need no telling."""


def keys_of(screen: Screen[Any]) -> str:
    """What the keys do here and now, read off the screen's own bindings: for every screen that has no page of its own."""
    rows: dict[str, list[str]] = {}
    for key, (node, binding, enabled, tooltip) in screen.active_bindings.items():
        ours = type(node).__module__.startswith("tui.")
        words = tooltip or binding.tooltip or binding.description
        if ours and enabled and words and not binding.system and binding.action not in EVERYWHERE:
            keys = rows.setdefault(words, [])
            name = NAMED.get(key) or screen.app.get_key_display(binding)
            if name not in keys:
                keys.append(name)
    lines = [f"  {', '.join(keys):<{KEYS_WIDE - 1}} {words}" for words, keys in rows.items()]
    from textual.widgets import Input, OptionList, TextArea

    focused = screen.focused
    if isinstance(focused, OptionList):
        lines.insert(0, f"  {'Up, Down':<{KEYS_WIDE}}from line to line; Enter takes one")
    elif isinstance(focused, Input | TextArea):
        lines.insert(0, f"  {'letters':<{KEYS_WIDE}}are typed, ? too; F1 helps")
    return "KEYS\n" + "\n".join(lines) + "\n"


class Help(ModalScreen[None]):
    BINDINGS = [Binding("escape,question_mark,f1,q,enter", "close", "close")]

    def __init__(self, text: str) -> None:
        """``text``: the screen's own keys and words."""
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help"):
            yield Static(self._text, markup=False)

    def action_close(self) -> None:
        self.dismiss(None)
