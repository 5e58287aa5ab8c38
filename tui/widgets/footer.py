"""The footer: the keys that work now, laid out anew only when they are others."""

from __future__ import annotations

from typing import Any

from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import Footer as TextualFooter


class Footer(TextualFooter):
    """Textual makes every key of its footer anew whenever the focus moves; in most moves the keys stay as they are, and
    making them costs more than all else that a key press does."""

    DEFAULT_CSS = ""  # Textual's, which is inherited
    _shown: Any = None

    def bindings_changed(self, screen: Screen[Any]) -> None:
        self._bindings_ready = True
        if screen.app.app_focus and self.is_attached and screen is self.screen:
            self.call_after_refresh(self._follow)  # only then do the bindings stand

    async def _follow(self) -> None:
        if self.is_attached and self._keys() != self._shown:
            await self.recompose()

    def compose(self) -> ComposeResult:
        if self._bindings_ready:
            self._shown = self._keys()
        yield from super().compose()

    def _keys(self) -> list[Any]:
        return [
            (binding, self.app.get_key_display(binding), enabled, tooltip)
            for _, binding, enabled, tooltip in self.screen.active_bindings.values()
        ]
