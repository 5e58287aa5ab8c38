"""The Textual app: a window on runs that go on without it. No training library is ever imported in its process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import ClassVar

from textual.app import App, SystemCommand
from textual.binding import ActiveBinding, Binding, BindingType
from textual.screen import Screen

from tui.words import unicode_terminal

LAST_WORDS = 3.0
"""Seconds to clean the terminal up after a signal."""


class FinetuneApp(App[None]):
    """Opens on the runs, or on one run. Leaving it never ends a run."""

    TITLE = "finetune-tui"
    CSS_PATH = "app.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (80, "-normal"), (140, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (24, "-middling"), (36, "-high")]
    ENABLE_COMMAND_PALETTE = True
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit", "leave", tooltip="Leave; runs go on in the background", priority=True),
        Binding("question_mark", "help", "help", key_display="?"),
    ]

    def __init__(self, run_id: str | None = None, then: Callable[[], Screen[None]] | None = None) -> None:
        super().__init__()
        self.then = then
        """Makes the screen that the app opens on, above the runs."""
        self.opened = run_id
        """The run that the app was opened on."""
        self.ascii_only = not unicode_terminal() or bool(os.environ.get("FINETUNE_TUI_ASCII"))

    def get_default_screen(self) -> Screen[object]:
        from tui.screens.home import Home

        return Home()  # type: ignore[return-value]

    def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        for name in ("SIGTERM", "SIGHUP"):
            loop.add_signal_handler(getattr(signal, name), self._leave)
        if not self.is_headless:
            # A terminal that goes without a signal would leave its reader spinning on the end of its input.
            self.set_interval(LAST_WORDS, self._notice_closed_terminal)
        if self.opened:
            self.watch_run(self.opened)
        if self.then:
            self.push_screen(self.then())

    def _notice_closed_terminal(self) -> None:
        if not os.isatty(sys.__stdin__.fileno() if sys.__stdin__ else 0):
            self._leave()

    def _leave(self) -> None:
        """Leave the terminal as it was found. One that was closed answers no more and would keep us for ever; there is
        nothing here that could be lost."""
        self.exit()
        last = threading.Timer(LAST_WORDS, os._exit, (1,))
        last.daemon = True
        last.start()

    def watch_run(self, run_id: str) -> None:
        from engine.runs.directory import find_run
        from tui.screens.monitor import Monitor

        self.push_screen(Monitor(find_run(run_id)))

    def action_chat(self) -> None:
        """Talk with the run that the screen shows."""
        from tui.screens.chat import chat_with

        run = self.screen.chosen_run()  # type: ignore[attr-defined]
        if run is not None:
            chat_with(self, run)

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The palette: everything that a key does here, by name."""
        yield from super().get_system_commands(screen)
        for binding in screen.active_bindings.values():
            if binding.enabled and binding.node is screen and binding.binding.description:
                word = binding.binding.description
                yield SystemCommand(word.capitalize(), f"key {binding.binding.key}", partial(self._act, binding))

    async def _act(self, binding: ActiveBinding) -> None:
        await self.run_action(binding.binding.action, binding.node)

    def action_help(self) -> None:
        from tui.screens.help import Help

        self.push_screen(Help())


def open_app(run_id: str | None = None) -> int:
    """Run the app until it is left. Returns the app's own exit code, not a run's."""
    app = FinetuneApp(run_id)
    app.run()
    return app.return_code or 0
