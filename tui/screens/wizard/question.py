"""The flowchart, one question a screen: the answers, what each means, and the tree with the path lit."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from recipes.errors import InputError
from recipes.flowchart import Leaf, Question, paths
from recipes.methods import cards
from tui.background import beside
from tui.screens.wizard.page import Page
from tui.wizard.fit import TALKED_OF, USUAL, Budget, budget
from tui.wizard.state import Wizard, answer, show, where
from tui.wizard.tree import tree
from tui.wizard.words import SIGNS, amount, card_facts, size

TOLD = ("best for", "needs", "data", "time", "memory", "targets")
"""What is said of a method before it is chosen."""
LIGHTS = {"taken": "bold $accent", "pointed": "$accent", "open": "", "dark": "dim"}


class QuestionPage(Page):
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"answer({number})", show=False) for number in range(1, 10)),
        Binding("w", "why", "why this", tooltip="Why this question"),
        Binding("u", "start('cases')", "cases", tooltip="Begin with a use case"),
        Binding("c", "start('strategies')", "combined", tooltip="Begin with a combined strategy"),
        Binding("t", "tables", "compare", tooltip="All methods side by side: tables and chart"),
        Binding("left", "model(-1)", "other model", key_display="←→"),
        Binding("right", "model(1)", show=False),
    ]

    def __init__(self, wizard: Wizard) -> None:
        super().__init__(wizard)
        here = where(wizard)
        assert isinstance(here, Question)
        self.question = here
        self._model = wizard.model or USUAL
        self._models = list(TALKED_OF) if self._model in TALKED_OF else [self._model, *TALKED_OF]
        self._suggested: str | None = None

    def body(self) -> ComposeResult:
        with Vertical(id="two"):
            with Vertical(id="choices"):
                yield Static(self.question.text, id="question", markup=False)
                options = [
                    Option(self._words(number), id=one.key) for number, one in enumerate(self.question.answers, 1)
                ]
                yield OptionList(*options, id="options")
                yield Static("", id="hint", markup=False)
                if self.question.settled_by == "forecast":
                    yield Static("the forecast asks the machine", id="budget", markup=False)
            with VerticalScroll(id="side", can_focus=False):
                yield Static("", id="tree", markup=False)
                yield Static("", id="ahead", markup=False)

    def on_mount(self) -> None:
        super().on_mount()
        options = self.query_one("#options", OptionList)
        options.focus()
        options.highlighted = 0
        if self.question.settled_by == "forecast":
            self._forecast(pick=True)

    def _words(self, number: int) -> Content:
        one = self.question.answers[number - 1]
        mine = one.key == self._suggested if hasattr(self, "_suggested") else False
        return Content.assemble(
            (f"{number}  ", "dim"), one.text, ("   the forecast suggests this" if mine else "", "$accent")
        )

    # ---- what is shown -------------------------------------------------------------------------------------------

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        pointed = event.option.id
        one = next(one for one in self.question.answers if one.key == pointed)
        leads = one.leads.because if isinstance(one.leads, Leaf) else ""
        self.put("hint", one.hint or leads)
        lines = []
        for branch in tree(self.wizard.answers, pointed, self.plain):
            style = LIGHTS[branch.light]
            leaf = f" {'-' if self.plain else '─'} {branch.leaf}" if branch.leaf else ""
            lines.append(
                Content.assemble((branch.twig, "dim"), (branch.text, style), (leaf, style or "bold" if leaf else ""))
            )
        self.put("tree", Content("\n").join(lines))
        self.put("ahead", self._ahead(str(pointed)))

    def _ahead(self, pointed: str) -> Content:
        """Where there is room: why it is asked, and what the answer under the cursor leads to."""
        lines = [Content.styled("Why this is asked", "bold"), Content(self.words(self.question.why))]
        for way, leaf in paths():
            keys = tuple(one.key for one in way)
            if keys[: len(self.wizard.answers) + 1] != (*self.wizard.answers, pointed):
                continue
            card = cards()[leaf.method]
            lines += [
                Content(""),
                Content.styled(f"{card.title}", "bold $accent"),
                Content.styled(card.purpose, "italic"),
            ]
            lines += [
                Content.assemble((f"{name:<9}", "dim"), self.words(words))
                for name, words in card_facts(card)
                if name in TOLD
            ]
        return Content("\n").join(lines)

    def why(self) -> str:
        text = self.question.why
        if self.question.settled_by == "forecast":
            text += (
                "\n\nThe figures are the forecast's for the model named, in 4 bit, one pair at a time, 512 tokens, activations "
                "recomputed: about the least that one trains with. ← and → name another model. The answer is yours whatever "
                "they say: the page `fit` looks at the recipe itself, and offers ORPO again if DPO does not fit."
            )
        return self.words(text)

    # ---- the memory question -------------------------------------------------------------------------------------

    def _forecast(self, pick: bool) -> None:
        model = self._model

        def work() -> Budget:
            from tui.machine_book import hardware

            return budget(model, hardware(), Path.cwd())

        def failed(error: Exception) -> None:
            said = error.problems[0].found if isinstance(error, InputError) else f"{error}"
            self.put("budget", Content.styled(f"no forecast for {model}: {said}", "dim"))

        beside(self, work, lambda found: self._show_budget(found, pick), failed)

    def _show_budget(self, found: Budget, pick: bool) -> None:
        if found.model != self._model:
            return  # of a model that was named before
        place = 1 if self.plain else 0
        about = f"{found.model} ({amount(found.parameters)} parameters{'' if found.model == 'lab' else ', 4 bit'})"
        lines = [
            Content.assemble((f"{size(found.available_mib)} available on {found.machine}, for ", "dim"), (about, ""))
        ]
        for method, needed, judged in found.methods:
            sign = SIGNS[judged]
            lines.append(
                Content.assemble(f"  {method.upper():<5}", f"{size(needed):>9}  ", (f"{sign[place]} {judged}", sign[2]))
            )
        self.put("budget", Content("\n").join(lines))
        self._suggested = found.suggests
        options = self.query_one("#options", OptionList)
        for number, one in enumerate(self.question.answers, start=1):
            options.replace_option_prompt_at_index(number - 1, self._words(number))
            if pick and one.key == found.suggests:
                options.highlighted = number - 1

    def action_model(self, by: int) -> None:
        place = (self._models.index(self._model) + by) % len(self._models)
        self._model = self._models[place]
        self._forecast(pick=False)

    # ---- answers -------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "model":
            return self.question.settled_by == "forecast"
        if action == "start":
            return not self.wizard.answers
        if action == "answer":
            return int(str(parameters[0])) <= len(self.question.answers)
        return True

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.go(answer(self.wizard, str(event.option.id)))

    def action_answer(self, number: int) -> None:
        self.go(answer(self.wizard, str(number)))

    def action_start(self, page: str) -> None:
        self.go(show(self.wizard, page))

    def action_tables(self) -> None:
        from tui.screens.wizard.tables import Tables

        self.app.push_screen(Tables())
