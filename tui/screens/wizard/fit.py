"""Will it fit: what takes the memory of each stage, the verdict, and remedies with their figures, one key away."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from recipes.errors import InputError
from tui.background import beside
from tui.screens.wizard.page import Page
from tui.wizard.draft import draft, revised
from tui.wizard.fit import Priced, apply, make_it_fit, price
from tui.wizard.state import Wizard, write
from tui.wizard.words import SIGNS, size, span

PARTS = {
    "weights": ("█", "W", "$primary"), "reference": ("▓", "R", "$secondary"), "adapter": ("▚", "A", "$accent"),
    "gradients": ("▒", "G", "$warning"), "optimizer": ("▞", "O", "$success"), "activations": ("░", "a", "$error"),
    "logits": ("▤", "L", "$secondary"), "kv_cache": ("▦", "K", "$accent"), "workspace": ("∙", "w", ""),
    "unused": ("·", "-", ""), "context": ("▪", "c", ""),
}  # fmt: skip
"""Part -> its sign in the bar, the one without Unicode, and its colour. The signs differ without colour too."""
CHANGES_THE_METHOD = ("orpo", "smaller model")


class FitPage(Page):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "best", "apply the best"),
        Binding("pagedown,j", "read(1)", "more", key_display="PgDn"),
        Binding("pageup,k", "read(-1)", show=False),
    ]
    WHY = (
        "Before anything is downloaded or started: does each stage fit into the memory that is free now, and how long does "
        "it take. The first figures are arithmetic; where the training libraries are here, a helper traces the real training "
        "step meanwhile, and its figures replace them.\n\n`fits`: even the high figure does. `tight`: the low one does, the "
        "high one does not. `does not fit`: not even the low one. A remedy keeps the effective batch; Enter applies it. A "
        "stage that runs out of memory all the same is started again with half the micro-batch."
    )

    def __init__(self, wizard: Wizard) -> None:
        text = revised(wizard) if wizard.text else draft(wizard)
        super().__init__(write(wizard, text))
        self.priced = Priced(text, None)
        self._tracing = False
        self._said: list[str] = []
        self._remedies: list[tuple[int, dict[str, Any]]] = []

    def body(self) -> ComposeResult:
        yield Static("Does it fit?", id="question", markup=False)
        yield OptionList(id="fit-choices")
        with VerticalScroll(id="fit-report", can_focus=False):
            yield Static("", id="fit-text", markup=False)

    def on_mount(self) -> None:
        super().on_mount()
        self.remember(self.wizard)
        self.query_one("#fit-choices", OptionList).focus()
        self._draw()
        self._price()

    def on_unmount(self) -> None:
        if self._tracing:
            from engine.forecast.trace import cancel_running

            cancel_running()

    def on_resize(self) -> None:
        super().on_resize()
        self._draw_report()

    # ---- pricing -------------------------------------------------------------------------------------------------

    def _price(self) -> None:
        text = self.wizard.text

        def work() -> Priced:
            from tui.machine_book import hardware

            return price(text, Path.cwd(), hardware())

        beside(self, work, self._judged)

    def _judged(self, found: Priced) -> None:
        if found.text != self.wizard.text:
            return
        self.priced = found
        self._draw(fresh=True)
        if found.plan and _worth_tracing(found):
            self._trace()

    def _trace(self) -> None:
        text, self._tracing = self.wizard.text, True
        self._draw_report()

        def work() -> Priced:
            from tui.machine_book import hardware

            return price(text, Path.cwd(), hardware(), trace=True)

        def traced(found: Priced) -> None:
            self._tracing = False
            if found.text == self.wizard.text:
                self.priced = found
                self._draw()

        def failed(error: Exception) -> None:
            self._tracing = False
            self._said = [f"not traced: {error}"]
            self._draw()

        beside(self, work, traced, failed)

    # ---- drawing -------------------------------------------------------------------------------------------------

    def _draw(self, fresh: bool = False) -> None:
        choices = self.query_one("#fit-choices", OptionList)
        before = choices.get_option_at_index(choices.highlighted).id if choices.highlighted is not None else None
        options = [Option(self._go_words(), id="go")]
        self._remedies = []
        for stage_number, stage in enumerate(self.priced.plan["stages"] if self.priced.plan else ()):
            for remedy in stage["remedies"]:
                if remedy["set"] or remedy["name"] == "make-fit":
                    self._remedies.append((stage_number, remedy))
        for number, (stage_number, remedy) in enumerate(self._remedies):
            options.append(Option(self._remedy_words(stage_number, remedy), id=f"remedy:{number}"))
        choices.set_options(options)
        ids = [option.id for option in options]
        best = self._best()
        if fresh and best is not None and self.priced.verdict == "does not fit":
            choices.highlighted = best + 1
        else:
            choices.highlighted = ids.index(before) if before in ids and not fresh else 0
        self._draw_report()
        self.refresh_bindings()

    def _go_words(self) -> Content:
        found = self.priced
        if found.problems:
            return Content.styled("Go on and mend the recipe: see below", "$error")
        if found.plan is None:
            if found.unpriced:
                return Content.styled("Go on without a forecast", "$warning")
            return Content("the forecast is on its way")
        sign = SIGNS[found.verdict or "fits"]
        word = {"fits": "It fits: go on to the recipe", "tight": "It is tight: go on to the recipe all the same"}
        text = word.get(found.verdict or "fits", "It does not fit: go on to the recipe all the same (a start will ask)")
        return Content.styled(f"{sign[1] if self.plain else sign[0]} {text}", f"bold {sign[2]}")

    def _remedy_words(self, stage_number: int, remedy: dict[str, Any]) -> Content:
        sign = SIGNS[remedy["verdict"]]
        assert self.priced.plan is not None
        stages = self.priced.plan["stages"]
        where = f"{stages[stage_number]['method']}: " if len(stages) > 1 else ""
        width = max(30, self.app.size.width - 4)
        return Content.assemble(
            (f"{sign[1] if self.plain else sign[0]} ", sign[2]), (f"{size(remedy['process_mib']):>9}  ", sign[2]),
            f"{where}{self._said_here(remedy['what'])}", (f"  (costs {remedy['costs']})", "dim"),
        ).truncate(width, ellipsis=True)  # fmt: skip

    def _said_here(self, text: str) -> str:
        """The forecast's words without the command line's."""
        return self.words(
            text.replace(" (--make-fit)", "").replace("--make-fit combines them", "several together do: b")
        )

    def _draw_report(self) -> None:
        width = max(30, self.app.size.width - 4)
        lines: list[Content] = []
        for text in self._said:
            lines.append(Content.styled(f"{'+' if self.plain else '✓'} {text}", "$success"))
        for problem in self.priced.problems:
            lines.append(Content.styled(str(problem), "$error"))
        if self.priced.unpriced:
            lines.append(Content.styled(f"no figures: {self.priced.unpriced}", "$warning"))
        plan = self.priced.plan
        if plan:
            machine = plan["hardware"]
            head = f"{plan['model']['name']} on {machine['name']}, {size(machine['available_mib'])} available"
            lines.append(Content.styled(head, "dim"))
            for number, stage in enumerate(plan["stages"], start=1):
                lines += [Content(""), *self._stage(number, stage, width)]
        self.query_one("#fit-text", Static).update(Content("\n").join(lines))

    def _stage(self, number: int, stage: dict[str, Any], width: int) -> list[Content]:
        memory, time = stage["memory"], stage["time_s"]
        sign = SIGNS[stage["verdict"]]
        tier = memory["tier"] + (", being traced" if self._tracing and memory["tier"] != "trace" else "")
        dash = "-" if self.plain else "–"
        return [
            Content.assemble(
                (f"{number}. {stage['method']} ", "bold"),
                (f"{sign[1] if self.plain else sign[0]} {stage['verdict']}  ", f"bold {sign[2]}"),
                f"{size(memory['process_mib'])} ",
                (f"({size(memory['low_mib'])} {dash} {size(memory['high_mib'])}, by {tier}) ", "dim"),
                f"about {span(time['value'])} ",
                (f"({span(time['low'])} {dash} {span(time['high'])})", "dim"),
            ),
            self._bar(memory["parts"], stage["available_mib"], width),
            self._legend(memory["parts"], width),
            *(
                Content.styled(f"{'!' if self.plain else '▲'} {self._said_here(note)}", "$warning")
                for note in stage["notes"]
            ),
        ]

    def _bar(self, parts: dict[str, float], available: float, width: int) -> Content:
        """To the scale of what is available, whose end is marked; where a stage needs more, it sticks out."""
        place = 1 if self.plain else 0
        room = min(width, 100) - 1
        total = sum(parts.values())
        scale = room / max(available, total)
        end = round(available * scale)
        cells: list[tuple[str, str]] = []
        so_far = 0.0
        for name, value in parts.items():
            so_far += value
            cells += [(PARTS[name][place], PARTS[name][2])] * (round(so_far * scale) - len(cells))
        cells += [(" ", "")] * max(0, end - len(cells))
        cells.insert(end, ("|" if self.plain else "┃", "bold"))
        return Content.assemble(*cells)

    def _legend(self, parts: dict[str, float], width: int) -> Content:
        """Broken between parts, never inside one."""
        place = 1 if self.plain else 0
        told: list[tuple[str, str]] = []
        used = 0
        for name, value in parts.items():
            words = f"{name.replace('_', ' ')} {size(value)}  "
            if value < 1:
                continue
            if used and used + 2 + len(words) > width:
                told.append(("\n", ""))
                used = 0
            told += [(f"{PARTS[name][place]} ", PARTS[name][2]), (words, "")]
            used += 2 + len(words)
        return Content.assemble(*told)

    # ---- keys ----------------------------------------------------------------------------------------------------

    def _best(self) -> int | None:
        """The gentlest that fits and keeps methods and model; else whatever fits; else what there is."""
        ranked = [
            (remedy["verdict"] != "fits", remedy["name"] in CHANGES_THE_METHOD, number)
            for number, (_, remedy) in enumerate(self._remedies)
        ]
        return min(ranked)[2] if ranked else None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "best":
            return True if self._best() is not None else None
        return True

    def action_best(self) -> None:
        best = self._best()
        if best is not None:
            self._apply(*self._remedies[best])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        kind, _, number = str(event.option.id).partition(":")
        if kind == "remedy":
            self._apply(*self._remedies[int(number)])
        elif self.priced.plan or self.priced.problems or self.priced.unpriced:
            self.go(write(self.wizard, self.wizard.text, page="recipe"))

    def _apply(self, stage: int, remedy: dict[str, Any]) -> None:
        if remedy["name"] != "make-fit":
            self._said = [f"changed: {self.words(remedy['what'])}"]
            self._rewrite(apply(self.wizard.text, stage, remedy))
            return
        text = self.wizard.text

        def work() -> tuple[str | None, list[str]]:
            from tui.machine_book import hardware

            return make_it_fit(text, Path.cwd(), hardware())

        def done(found: tuple[str | None, list[str]]) -> None:
            if found[0] is None:
                self._said = [found[1][0]]
                self._draw_report()
                return
            self._said = [f"changed {one}" for one in found[1]]
            self._rewrite(found[0])

        def failed(error: Exception) -> None:
            said = error.problems[0] if isinstance(error, InputError) else error
            self.notify(str(said), severity="error", timeout=15, markup=False)

        beside(self, work, done, failed)

    def _rewrite(self, text: str) -> None:
        self.remember(write(self.wizard, text))
        self.priced = Priced(text, None)
        self._price()

    def action_read(self, by: int) -> None:
        scroll = self.query_one("#fit-report", VerticalScroll)
        (scroll.scroll_page_down if by > 0 else scroll.scroll_page_up)(animate=False)


def _worth_tracing(found: Priced) -> bool:
    """Models of some size on a GPU: for the lab, and on a CPU, the arithmetic's figures settle nothing less."""
    plan = found.plan
    return bool(plan and plan["hardware"]["kind"] == "cuda" and plan["model"]["parameters"] > 20_000_000)
