"""The Textual app: a window on runs that go on without it. No training library is ever imported in its process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual.app import App, SystemCommand
from textual.binding import ActiveBinding, Binding, BindingType
from textual.events import AppFocus
from textual.screen import Screen

from tui.settings import Settings, apply_directories, load_settings
from tui.themes import NAMES, chart_variables, own_themes
from tui.words import unicode_terminal

if TYPE_CHECKING:
    from engine.runs.directory import RunDirectory
    from tui.view.run_view import RunView

SAVE_TITLE, RESTORE_TITLE = "\x1b[22;2t", "\x1b[23;2t"
"""Keep the terminal's title and put it back (xterm's window operations)."""
TYPED_INTO = ("Input", "TextArea")
"""Widgets that take letters; by name, since importing them would cost the first paint."""
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
        Binding("colon", "palette_too", "palette", show=False),  # zellij and VS Code keep Ctrl+P for themselves
        Binding("f1", "app.help_anyway", "help", show=False),
        Binding("f2", "settings", "settings", show=False),
    ]

    def __init__(self, run_id: str | None = None, then: Callable[[], Screen[None]] | None = None) -> None:
        loaded = load_settings()
        self.settings, self._setting_problems = loaded.settings, loaded.problems
        apply_directories(self.settings)
        super().__init__()
        for theme in own_themes():
            self.register_theme(theme)
        self.theme = NAMES.get(self.settings.theme, self.settings.theme)
        self.then = then
        """Makes the screen that the app opens on, above the runs."""
        self.opened = run_id
        """The run that the app was opened on."""
        forced = bool(os.environ.get("FINETUNE_TUI_ASCII")) or self.settings.ascii
        in_browser = "web" in os.environ.get("TEXTUAL_DRIVER", "")
        self.ascii_only = forced or not (in_browser or unicode_terminal())
        self._show_keys()

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return chart_variables(self.current_theme)

    def get_default_screen(self) -> Screen[object]:
        from tui.screens.home import Home

        return Home()  # type: ignore[return-value]

    def on_mount(self) -> None:
        loop = asyncio.get_running_loop()
        for name in ("SIGTERM", "SIGHUP"):
            loop.add_signal_handler(getattr(signal, name), self._leave)
        for problem in self._setting_problems:
            self.notify(f"{problem} The default is in force.", severity="warning", timeout=15, markup=False)
        if not self.is_headless and not self.is_web:
            self._say_to_terminal(SAVE_TITLE)
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

    def on_unmount(self) -> None:
        if not self.is_headless and not self.is_web:
            self._say_to_terminal(RESTORE_TITLE)

    def on_app_focus(self, event: AppFocus) -> None:
        """tmux forgets the mouse's mode when one attaches to it again (Textual's issue 6668): say it once more."""
        if self.settings.mouse and not self.is_headless and not self.is_web:
            self._say_to_terminal("\x1b[?1000h\x1b[?1003h\x1b[?1015h\x1b[?1006h")

    def _say_to_terminal(self, sequence: str) -> None:
        if self._driver is not None and sequence:
            self._driver.write(sequence)

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
        yield SystemCommand("Compare runs", "overlay their charts, see what differs", self.compare)
        yield SystemCommand("Settings", "theme, keys, directories, notifications (key f2)", self.action_settings)
        yield SystemCommand("Help", "keys and words of this screen (keys ? and f1)", self.action_help)
        for binding in screen.active_bindings.values():
            if binding.enabled and binding.node is screen and binding.binding.description:
                word = binding.binding.description
                yield SystemCommand(word.capitalize(), f"key {binding.binding.key}", partial(self._act, binding))

    async def _act(self, binding: ActiveBinding) -> None:
        await self.run_action(binding.binding.action, binding.node)

    def action_help(self) -> None:
        from tui.screens.help import Help, keys_of

        if not isinstance(self.screen, Help):
            self.push_screen(Help(getattr(self.screen, "HELP", "") or keys_of(self.screen)))

    def action_palette_too(self) -> None:
        """``:`` (Textual binds no other key where one is bound to its own action)."""
        self.action_command_palette()

    def action_help_anyway(self) -> None:
        """F1: also where ``?`` is typed."""
        self.action_help()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Where letters are typed ``?`` is one of them: the footer does not promise help there."""
        if action == "help" and self.is_running:
            return not any(kind.__name__ in TYPED_INTO for kind in type(self.focused).__mro__)
        return True

    def action_settings(self) -> None:
        from tui.screens.settings import SettingsScreen

        if not isinstance(self.screen, SettingsScreen):
            self.push_screen(SettingsScreen())

    def action_compare(self) -> None:
        """Choose runs and compare them; on a screen that knows one, it is marked already."""
        knows = getattr(self.screen, "chosen_run", None)
        run = knows() if knows else None
        self.compare([run.id] if run else [])

    def compare(self, run_ids: Sequence[str] = ()) -> None:
        """Compare these runs; with fewer than two, choose the others first."""
        from tui.screens.compare import Compare, PickRuns

        def begin(chosen: list[str] | None) -> None:
            if chosen:
                self.push_screen(Compare(chosen))

        if len(run_ids) >= 2:
            begin(list(run_ids))
        else:
            self.push_screen(PickRuns(run_ids), begin)

    # ---- settings ------------------------------------------------------------------------------------------------

    def set_settings(self, settings: Settings) -> None:
        """Put them in force and on the disk."""
        from tui.settings import save_settings

        self.settings = settings
        self.theme = NAMES.get(settings.theme, settings.theme)
        self._show_keys()
        try:
            save_settings(settings)
        except OSError as error:
            self.notify(f"the settings could not be kept: {error}", severity="error", timeout=15, markup=False)

    def watch_theme(self, theme: str) -> None:
        """Also one that was chosen in the palette is kept."""
        word = next((word for word, name in NAMES.items() if name == theme), theme)
        if self.is_running and word != self.settings.theme:
            self.set_settings(replace(self.settings, theme=word))

    def _show_keys(self) -> None:
        self.set_class(self.settings.keys == "hidden", "-keys-hidden")

    # ---- a run's end ---------------------------------------------------------------------------------------------

    def run_changed(self, run: RunDirectory, view: RunView, before: RunView | None) -> None:
        """The terminal's title says how the run stands; who saw it working is told when it ends."""
        from tui.notify import ENDED, notify_desktop, sequences, terminal_title

        self._say_to_terminal("" if self.is_headless or self.is_web else terminal_title(f"{view.status}: {run.id}"))
        if before is not None and before.status == "running" and view.status in ENDED:
            how = self.settings.notifications
            if not self.is_headless and not self.is_web:
                self._say_to_terminal(sequences(run.id, view.headline, how))
                notify_desktop(run.id, view.headline, how)


def open_app(run_id: str | None = None) -> int:
    """Run the app until it is left. Returns the app's own exit code, not a run's."""
    app = FinetuneApp(run_id)
    app.run(mouse=app.settings.mouse)
    return app.return_code or 0


if __name__ == "__main__":  # in a browser: tui/commands/web.py
    sys.exit(open_app())
