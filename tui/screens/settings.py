"""What a person can choose for the app; each choice is in force and on the disk at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input, Label, Select, Static

from tui.settings import CHOICES, settings_path
from tui.widgets.footer import Footer

ROWS: tuple[tuple[str, str, str], ...] = (
    ("theme", "Theme", "colour-blind: blue good, vermilion bad; ansi: the terminal's"),
    ("keys", "Keys", "the line at the bottom; ? and Ctrl+P work without it"),
    ("notifications", "Run's end", "auto: terminal, desktop and bell, whatever there is"),
    ("mouse", "Mouse", "no leaves it to the terminal; from the next start on"),
    ("ascii", "ASCII only", "for terminals without Unicode; from the next start on"),
    ("runs", "Runs", "from the next start on; FINETUNE_TUI_HOME goes before it"),
    ("models", "Models", "HF_HOME, from the next start on; the environment goes before"),
)
"""Field, label, what it means."""
HELP = """\
KEYS
  Tab  Shift+Tab   the next choice, the one before
  Enter  Space     open a choice; Enter keeps a path
  Esc              back

  Every choice is kept at once, in the file that the last line names; a line that is
  not in it stands at its default. NO_COLOR and FINETUNE_TUI_ASCII are obeyed as well.
"""


class SettingsScreen(Screen[None]):
    HELP = HELP
    AUTO_FOCUS = "#theme"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "back", "back")]

    def compose(self) -> ComposeResult:
        settings = self.app.settings  # type: ignore[attr-defined]
        yield Static("Settings", id="headline", markup=False)
        with VerticalScroll(id="choices"):
            for field, label, meaning in ROWS:
                value = getattr(settings, field)
                with Horizontal(classes="choice"):
                    yield Label(label, classes="name")
                    if isinstance(value, bool):
                        options = [("yes", True), ("no", False)]
                        yield Select(options, value=value, allow_blank=False, compact=True, id=field)
                    elif field in CHOICES:
                        words = list(dict.fromkeys([*CHOICES[field], value]))
                        yield Select(
                            [(word, word) for word in words], value=value, allow_blank=False, compact=True, id=field
                        )
                    else:
                        yield Input(value, placeholder=self._standing(field), compact=True, id=field)
                yield Static(meaning, classes="meaning", markup=False)
            yield Static(Content.styled(f"kept in {settings_path()}", "dim"), id="kept")
        yield Footer()

    def _standing(self, field: str) -> str:
        """Where the directory is as long as nothing is chosen."""
        if field == "runs":
            from engine.runs.directory import home

            return str(home())
        from engine.hardware.host import models_cache

        return str(models_cache().parent)

    def on_select_changed(self, event: Select.Changed) -> None:
        self._keep(event.select.id, event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._path(event.input)

    def on_input_blurred(self, event: Input.Blurred) -> None:
        self._path(event.input)

    def _path(self, field: Input) -> None:
        """A directory that there is, or that can be made."""
        text = field.value.strip()
        if text == getattr(self.app.settings, str(field.id)):  # type: ignore[attr-defined]
            return
        path = Path(text).expanduser()
        if text and not path.is_absolute():
            self._refuse(f"`{text}` is no full path: begin with / or ~")
        elif text and path.exists() and not path.is_dir():
            self._refuse(f"`{text}` is a file: a directory is wanted")
        elif text and not path.exists() and not path.parent.is_dir():
            self._refuse(f"`{path.parent}` does not exist: make it first, or choose another")
        else:
            self._keep(field.id, text)
            self.notify("kept; it counts from the next start on", timeout=3)

    def _refuse(self, words: str) -> None:
        self.notify(words, severity="error", timeout=10, markup=False)

    def _keep(self, field: str | None, value: object) -> None:
        settings = self.app.settings  # type: ignore[attr-defined]
        if field and getattr(settings, field) != value:
            self.app.set_settings(replace(settings, **{field: value}))  # type: ignore[attr-defined]

    def action_back(self) -> None:
        self.app.pop_screen()
