"""Type to narrow a list, or to name what is not in it: for models and for paths."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.screen import ModalScreen
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from tui.screens.help import HELP_KEY
from tui.screens.wizard.page import STYLES
from tui.wizard.paths import complete


class TypeHere(Input):
    """An input whose arrow keys move in the list below it; Tab takes over what is under the cursor there."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "move(1)", show=False),
        Binding("up", "move(-1)", show=False),
        Binding("pagedown", "move(8)", show=False),
        Binding("pageup", "move(-8)", show=False),
        Binding("tab", "take_over", "complete"),
    ]

    @property
    def picker(self) -> Picker:
        parent = self.parent
        assert isinstance(parent, Picker)
        return parent

    def action_move(self, by: int) -> None:
        self.picker.move(by)

    def action_take_over(self) -> None:
        self.picker.take_over()


class Picker(Vertical):
    """``Typed`` when the words change, ``Picked`` with the id under the cursor (or, with an empty list, the words)."""

    class Typed(Message):
        def __init__(self, words: str) -> None:
            super().__init__()
            self.words = words

    class Picked(Message):
        def __init__(self, word: str) -> None:
            super().__init__()
            self.word = word

    def __init__(self, value: str = "", placeholder: str = "", id: str | None = None) -> None:
        super().__init__(id=id)
        self._value, self._placeholder = value, placeholder

    def compose(self) -> ComposeResult:
        yield TypeHere(self._value, self._placeholder, id="pick-input", compact=True, select_on_focus=False)
        listed = OptionList(id="pick-list")
        listed.can_focus = False
        yield listed

    def on_mount(self) -> None:
        self.input.focus()

    @property
    def input(self) -> TypeHere:
        return self.query_one(TypeHere)

    @property
    def listed(self) -> OptionList:
        return self.query_one(OptionList)

    def show(self, options: list[Option], highlighted: str | None = None) -> None:
        """A new list; the cursor goes to the option named, else to the first."""
        listed = self.listed
        listed.set_options(options)
        ids = [option.id for option in options]
        able = [number for number, option in enumerate(options) if not option.disabled]
        if highlighted in ids:
            listed.highlighted = ids.index(highlighted)
        else:
            listed.highlighted = able[0] if able else None

    def move(self, by: int) -> None:
        for _ in range(abs(by)):
            (self.listed.action_cursor_down if by > 0 else self.listed.action_cursor_up)()

    @property
    def pointed(self) -> str | None:
        place = self.listed.highlighted
        return None if place is None else self.listed.get_option_at_index(place).id

    def take_over(self) -> None:
        if self.pointed:
            self.fill(self.pointed)

    def fill(self, words: str) -> None:
        self.input.value = words
        self.input.cursor_position = len(words)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self.post_message(self.Typed(event.value))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.post_message(self.Picked(self.pointed or event.value.strip()))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:  # by the mouse
        event.stop()
        self.post_message(self.Picked(str(event.option.id)))


class PathPicker(ModalScreen[str | None]):
    """A file or a folder, completed while it is typed. Gives the words as typed, "" for none where that may be."""

    CSS_PATH = STYLES
    BINDINGS = [Binding("escape", "close", "back"), Binding("ctrl+e", "nothing", "none"), HELP_KEY]

    def __init__(
        self, title: str, value: str, suffixes: Collection[str], optional: bool = False, hint: str = "",
        checked: Callable[[str], str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.heading, self.value, self.suffixes, self.optional, self.hint = title, value, suffixes, optional, hint
        self._checked = checked

    def compose(self) -> ComposeResult:
        keys = "Enter takes it · Tab completes · Esc back" + (" · Ctrl+E none" if self.optional else "")
        if self.app.ascii_only:  # type: ignore[attr-defined]
            keys = keys.replace("·", "|")
        with Vertical(id="path-picker"):
            yield Static(self.heading, id="path-title", markup=False)
            yield Picker(self.value, "a path, lab/… or builtin/…", id="picker")
            yield Static("", id="path-fault", markup=False)
            yield Static(self.hint, id="path-hint", markup=False)
            yield Static(keys, id="path-keys", markup=False)

    def on_picker_typed(self, event: Picker.Typed) -> None:
        self.query_one("#path-fault", Static).update("")
        found = complete(event.words, self.suffixes)
        options = [Option(Content.styled(one.word, "bold" if not one.folder else ""), id=one.word) for one in found]
        self.query_one(Picker).show(options)

    def on_picker_picked(self, event: Picker.Picked) -> None:
        picker, word = self.query_one(Picker), event.word
        if not word:
            if self.optional:
                self.dismiss("")
            return
        if word.endswith("/") and word != picker.input.value:
            picker.fill(word)  # into the folder; Enter once more takes the folder itself
            return
        typed = picker.input.value.strip()
        if typed.endswith("/") and Path(typed).expanduser().is_dir() and picker.pointed is None:
            word = typed
        said = self._checked(word) if self._checked else ""
        if said:
            self.query_one("#path-fault", Static).update(said)
            return
        self.dismiss(word)

    def action_close(self) -> None:
        self.dismiss(None)

    def action_nothing(self) -> None:
        if self.optional:
            self.dismiss("")


class Ask(ModalScreen[str | None]):
    """One line of text."""

    CSS_PATH = STYLES
    BINDINGS = [Binding("escape", "close", "back"), HELP_KEY]

    def __init__(self, question: str, value: str = "", placeholder: str = "") -> None:
        super().__init__()
        self.question, self.value, self.placeholder = question, value, placeholder

    def compose(self) -> ComposeResult:
        with Vertical(id="path-picker"):
            yield Static(self.question, id="path-title", markup=False)
            yield Input(self.value, self.placeholder, id="pick-input", compact=True, select_on_focus=False)
            yield Static("Enter takes it · Esc back", id="path-keys", markup=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())

    def action_close(self) -> None:
        self.dismiss(None)
