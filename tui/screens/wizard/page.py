"""What all pages of the guided way have in common: where one is, back, why, and that nothing said is ever lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Static

from tui.widgets.footer import Footer
from tui.wizard import keep
from tui.wizard.state import Wizard, back, said, trail
from tui.words import ascii_words

STYLES = Path(__file__).with_name("wizard.tcss")


class Page(Screen[None]):
    """A step of the way. Sub-classes compose ``body`` and hand a new state to ``go``."""

    CSS_PATH = STYLES
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back"),
        Binding("f1", "why", "why", tooltip="Why this step, and its keys"),
        Binding("f9", "leave", "home", tooltip="To the runs; what was said is kept"),
    ]
    WHY = ""
    """What the page is for, in words for who wonders."""

    def __init__(self, wizard: Wizard) -> None:
        super().__init__()
        self.wizard = wizard

    def compose(self) -> ComposeResult:
        yield Static(id="trail")
        yield from self.body()
        yield Footer()

    def body(self) -> ComposeResult:
        raise NotImplementedError

    def on_mount(self) -> None:
        self.draw_trail()

    def on_resize(self) -> None:
        self.draw_trail()

    def draw_trail(self) -> None:
        narrow = self.app.size.width < 80
        arrow = " > " if self.plain else " › "
        parts: list[tuple[str, str] | str] = [("" if narrow else "new recipe   ", "bold")]
        for number, (name, here) in enumerate(trail(self.wizard)):
            parts += [arrow] if number else []
            parts.append((f"[{name}]" if here else name, "bold $accent" if here else "dim"))
        self.query_one("#trail", Static).update(Content.assemble(*parts))

    # ---- helpers of the pages ------------------------------------------------------------------------------------

    @property
    def plain(self) -> bool:
        """Nothing but ASCII."""
        return bool(self.app.ascii_only)  # type: ignore[attr-defined]

    def words(self, text: str) -> str:
        return ascii_words(text) if self.plain else text

    def put(self, name: str, content: Any) -> None:
        self.query_one(f"#{name}", Static).update(content)

    # ---- from page to page ---------------------------------------------------------------------------------------

    def go(self, wizard: Wizard) -> None:
        keep.keep(wizard)
        self.app.switch_screen(page_for(wizard))

    def remember(self, wizard: Wizard) -> None:
        """A new state on the same page."""
        self.wizard = wizard
        keep.keep(wizard)

    def action_back(self) -> None:
        before = back(self.wizard)
        if before is None:
            self.action_leave()
        else:
            self.go(before)

    def action_leave(self) -> None:
        keep.keep(self.wizard)
        self.app.pop_screen()

    def action_why(self) -> None:
        from tui.screens.help import keys_of

        self.app.push_screen(Words("Why this step", f"{self.why()}\n\n{keys_of(self).rstrip()}"))

    def why(self) -> str:
        return self.WHY


def page_for(wizard: Wizard) -> Page:
    """The page of a state; its module is imported only now."""
    if wizard.page == "goal":
        from tui.screens.wizard.question import QuestionPage

        return QuestionPage(wizard)
    if wizard.page in ("cases", "strategies"):
        from tui.screens.wizard.starts import Cases, Strategies

        return Cases(wizard) if wizard.page == "cases" else Strategies(wizard)
    if wizard.page == "method":
        from tui.screens.wizard.method import MethodPage

        return MethodPage(wizard)
    if wizard.page == "model":
        from tui.screens.wizard.model import ModelPage

        return ModelPage(wizard)
    if wizard.page == "data":
        from tui.screens.wizard.data import DataPage

        return DataPage(wizard)
    if wizard.page == "fit":
        from tui.screens.wizard.fit import FitPage

        return FitPage(wizard)
    from tui.screens.wizard.recipe import RecipePage

    return RecipePage(wizard)


def open_wizard(app: Any, ask: Callable[..., None] | None = None) -> None:
    """Begin, or go on where it was left: by an error, a crash, or because somebody wanted to look at something else."""
    before = keep.kept()
    if before is None:
        app.push_screen(page_for(Wizard()))
        return
    from tui.screens.confirm import Confirm

    def answered(go_on: bool | None) -> None:
        if not go_on:
            keep.forget()
        app.push_screen(page_for(before if go_on else Wizard()))

    words = said(before) or "at its first question"
    stage = f", at the page `{before.page}`" if before.page != "goal" else ""
    app.push_screen(Confirm(f"A recipe was begun: {words}{stage}.\nGo on with it?", "Go on", "Begin anew"), answered)


class Words(ModalScreen[None]):
    """A few lines over the page."""

    CSS_PATH = STYLES
    BINDINGS = [Binding("escape,enter,q,f1,question_mark", "close", "close")]

    def __init__(self, title: str, text: str | Content) -> None:
        super().__init__()
        self.heading, self.text = title, text

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="words"):
            yield Static(self.heading, id="words-title", markup=False)
            yield Static(self.text, markup=False)
            yield Static("Esc closes", id="words-end", markup=False)

    def action_close(self) -> None:
        self.dismiss(None)
