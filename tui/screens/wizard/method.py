"""The leaf: what to run, alone or in a combination that fits the goal, and the card of each method in it."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from recipes.methods import cards
from recipes.methods.card import Card
from recipes.strategies import STRATEGIES
from tui.screens.wizard.page import Page
from tui.wizard.state import Plan, choose_plan, notice, plans
from tui.wizard.words import card_facts, plan_line

INDENT = 12


class MethodPage(Page):
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"pick({number})", show=False) for number in range(1, 10)),
        Binding("t", "tables", "compare", tooltip="All methods side by side: tables and chart"),
        Binding("pagedown,j", "card(1)", "more", key_display="PgDn"),
        Binding("pageup,k", "card(-1)", show=False),
    ]
    WHY = (
        "The flowchart ends in one method. Its card says what it is good at, what it costs and what counts as success; "
        "where a combination of methods serves the same goal, it stands below the method alone. Enter takes what is "
        "under the cursor."
    )

    def body(self) -> ComposeResult:
        self._plans = plans(self.wizard)
        yield Static("", id="because", markup=False)
        yield OptionList(*(Option(self._words(n, plan), id=str(n)) for n, plan in enumerate(self._plans)), id="plans")
        with VerticalScroll(id="card", can_focus=False):
            yield Static("", id="card-text", markup=False)

    def on_mount(self) -> None:
        super().on_mount()
        options = self.query_one("#plans", OptionList)
        taken = next((n for n, plan in enumerate(self._plans) if plan == self.wizard.plan), 0)
        options.highlighted = taken
        options.focus()

    def on_resize(self) -> None:
        super().on_resize()
        options = self.query_one("#plans", OptionList)
        if options.highlighted is not None:
            self._show(self._plans[options.highlighted])

    def _words(self, number: int, plan: Plan) -> Content:
        line = self.words(plan_line(plan))
        parts: list[tuple[str, str]] = [(f"{number + 1}  ", "dim"), (plan.title, "bold")]
        if line != plan.title:
            parts.append((f"  {line}", ""))
        if any(plan.name == strategy.name for strategy in STRATEGIES):
            return Content.assemble(*parts)
        return Content.assemble(*parts, (f"  {self.words(plan.note)}", "dim"))

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        self._show(self._plans[int(str(event.option.id))])

    def _show(self, plan: Plan) -> None:
        strategy = next((one for one in STRATEGIES if one.name == plan.name), None)
        head = "It comes to this" if not self.wizard.case else "For this use case"
        self.put("because", Content.assemble((f"{head}: ", ""), (self.words(plan.title), "$accent")))
        purposes = {step.method: step.purpose for step in strategy.steps} if strategy else {}
        parts: list[Content] = []
        if strategy:
            parts += [Content(self.words(f"{strategy.use_case}.")), Content("")]
        if notice(plan):
            parts += [
                Content.styled("You will be asked to confirm that you use it responsibly.", "$warning"),
                Content(""),
            ]
        for number, method in enumerate(plan.methods, start=1):
            if len(plan.methods) > 1:
                told = f": {purposes[method]}" if method in purposes else ""
                parts.append(Content.styled(f"{number}. {cards()[method].title}{told}", "bold underline"))
            else:
                parts.append(Content.styled(cards()[method].title, "bold underline"))
            parts += [*self._card(cards()[method]), Content("")]
        self.put("card-text", Content("\n").join(parts))
        self.query_one("#card", VerticalScroll).scroll_home(animate=False)

    def _card(self, card: Card) -> list[Content]:
        good, bad = ("+", "-") if self.plain else ("+", "−")
        width = max(30, self.app.size.width - 6)
        lines = [Content.styled(card.purpose, "italic")]
        if width >= 96:
            half = (width - 2) // 2
            for row in range(max(len(card.strengths), len(card.weaknesses))):
                left = f"{good} {card.strengths[row]}" if row < len(card.strengths) else ""
                right = f"{bad} {card.weaknesses[row]}" if row < len(card.weaknesses) else ""
                lines.append(
                    Content.assemble((self.words(f"{left:<{half}}"), "$success"), (self.words(right), "$warning"))
                )
        else:
            lines += [Content.styled(self.words(f"{good} {text}"), "$success") for text in card.strengths]
            lines += [Content.styled(self.words(f"{bad} {text}"), "$warning") for text in card.weaknesses]
        for name, text in card_facts(card):
            lines.append(_hanging(name, self.words(text), width))
        return lines

    # ---- keys ----------------------------------------------------------------------------------------------------

    def action_card(self, by: int) -> None:
        scroll = self.query_one("#card", VerticalScroll)
        (scroll.scroll_page_down if by > 0 else scroll.scroll_page_up)(animate=False)

    def action_tables(self) -> None:
        from tui.screens.wizard.tables import Tables

        self.app.push_screen(Tables())

    def action_pick(self, number: int) -> None:
        if number <= len(self._plans):
            self._take(self._plans[number - 1])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self._take(self._plans[int(str(event.option.id))])

    def _take(self, plan: Plan) -> None:
        asked = notice(plan)
        if not asked:
            self.go(choose_plan(self.wizard, plan))
            return
        from tui.screens.confirm import Confirm

        def answered(yes: bool | None) -> None:
            if yes:
                self.go(choose_plan(self.wizard, plan, confirmed=True))

        self.app.push_screen(Confirm(f"{asked}\n\nDo you use it so?", "I use it responsibly", "No"), answered)


def _hanging(name: str, text: str, width: int) -> Content:
    """A heading and its words, wrapped beside it."""
    import textwrap

    lines = textwrap.wrap(text, max(20, width - INDENT)) or [""]
    rest = "".join(f"\n{'':<{INDENT}}{line}" for line in lines[1:])
    return Content.assemble((f"{name:<{INDENT}}", "dim"), lines[0], rest)
