"""Other ways in: the use-case matrix and the combined strategies, every row of them."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from recipes.comparison import short_title
from recipes.methods import cards
from recipes.strategies import STRATEGIES
from recipes.use_cases import USE_CASES
from tui.screens.wizard.page import Page
from tui.wizard.state import choose_case, choose_strategy
from tui.wizard.words import chain


class Starts(Page):
    """A list to choose from, with the details of the row under the cursor below it."""

    HEADING = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"pick({number})", show=False) for number in range(1, 10)),
        Binding("t", "tables", "compare", tooltip="All methods side by side: tables and chart"),
    ]

    def body(self) -> ComposeResult:
        with Vertical(id="two"):
            with Vertical(id="choices"):
                yield Static(self.HEADING, id="question", markup=False)
                yield OptionList(*self.options(), id="options")
            with VerticalScroll(id="side", can_focus=False):
                yield Static("", id="tree", classes="always", markup=False)

    def on_mount(self) -> None:
        super().on_mount()
        options = self.query_one("#options", OptionList)
        options.focus()
        options.highlighted = 0

    def options(self) -> list[Option]:
        raise NotImplementedError

    def details(self, key: str) -> Content:
        raise NotImplementedError

    def take(self, key: str) -> None:
        raise NotImplementedError

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        self.put("tree", self.details(str(event.option.id)))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.take(str(event.option.id))

    def action_pick(self, number: int) -> None:
        options = self.query_one("#options", OptionList)
        if number <= options.option_count:
            self.take(str(options.get_option_at_index(number - 1).id))

    def action_tables(self) -> None:
        from tui.screens.wizard.tables import Tables

        self.app.push_screen(Tables())


class Cases(Starts):
    HEADING = "What do you want to build?"
    WHY = (
        "The method comparison's use-case matrix: for what people build most often, the method that fits it, and an "
        "alternative where there is one. The next page has the method's card, and both to choose from."
    )

    def options(self) -> list[Option]:
        found = []
        for number, case in enumerate(USE_CASES, start=1):
            words = (f"{case.name:<20}", ""), (chain(case.primary), "bold")
            found.append(Option(Content.assemble((f"{number}  ", "dim"), *words), id=case.key))
        return found

    def details(self, key: str) -> Content:
        case = next(one for one in USE_CASES if one.key == key)
        lines = [
            ("primary      ", chain(case.primary)), ("alternative  ", chain(case.alternative) or "none"), ("note         ", case.note),
        ]  # fmt: skip
        return Content("\n").join(Content.assemble((name, "dim"), words) for name, words in lines)

    def take(self, key: str) -> None:
        self.go(choose_case(self.wizard, key))


class Strategies(Starts):
    HEADING = "Which combination?"
    WHY = (
        "Several methods one after the other on one adapter: what the first one teaches, the next one builds on. A gate "
        "between them stops the run when a stage has not reached what it is for."
    )

    def options(self) -> list[Option]:
        return [
            Option(
                Content.assemble((f"{number}  ", "dim"), f"{one.title:<24}", (self._chain(one.steps), "bold")),
                id=one.name,
            )
            for number, one in enumerate(STRATEGIES, start=1)
        ]

    def _chain(self, steps: tuple) -> str:  # type: ignore[type-arg]
        return self.words(" → ".join(short_title(cards()[step.method]) for step in steps))

    def details(self, key: str) -> Content:
        one = next(one for one in STRATEGIES if one.name == key)
        lines = [Content.styled(one.use_case, "bold"), Content("")]
        for number, step in enumerate(one.steps, start=1):
            lines.append(
                Content.assemble((f"{number}. ", "dim"), f"{short_title(cards()[step.method]):<18}", step.purpose)
            )
        during = f" (during {short_title(cards()[one.peak_during])})" if one.peak_during else ""
        lines += [
            Content(""), Content.assemble(("time    ", "dim"), f"{one.hours[0]}-{one.hours[1]} hours in total"),
            Content.assemble(("memory  ", "dim"), f"{one.peak_gb} GB at the peak{during}"),
            Content.styled("for a 1B model in 4 bit on an RTX 3090 or M2 Ultra", "dim"),
        ]  # fmt: skip
        return Content("\n").join(lines)

    def take(self, key: str) -> None:
        self.go(choose_strategy(self.wizard, key))
