"""The recipe before it starts: a form and its YAML, two views of one text, judged and priced as one types."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Button, Input, Static, TextArea

from recipes.errors import InputError
from tui.background import beside
from tui.screens.wizard.page import Page
from tui.wizard import keep
from tui.wizard.draft import assign, draft, read
from tui.wizard.fields import Field, form, value_of
from tui.wizard.fit import Priced, price
from tui.wizard.state import Wizard, write
from tui.wizard.words import SIGNS, size, span

PAUSE = 0.25
"""Seconds without a key after which what was typed is kept on the disk."""


class FieldInput(Input):
    """One field of the form; up and down go to its neighbours, and left and right choose where there are choices."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "app.focus_previous", show=False),
        Binding("down,enter", "app.focus_next", show=False),
    ]

    def __init__(self, field: Field) -> None:
        super().__init__(field.value, field.default, compact=True, select_on_focus=False)
        self.field = field

    def _turn(self, by: int) -> bool:
        choices = self.field.choices
        if not choices or (self.value and self.value not in choices):
            return False
        now = self.value or self.field.default
        place = choices.index(now) if now in choices else -1
        self.value = choices[(place + by) % len(choices)]
        return True

    def action_cursor_left(self, select: bool = False) -> None:
        if select or not self._turn(-1):
            super().action_cursor_left(select)

    def action_cursor_right(self, select: bool = False) -> None:
        if select or not self._turn(1):
            super().action_cursor_right(select)


class Row(Horizontal):
    def __init__(self, field: Field, wide: bool, plain: bool) -> None:
        super().__init__(classes="field")
        self.field, self._wide, self._plain = field, wide, plain

    def compose(self) -> ComposeResult:
        yield Static(self.field.label, classes="label", markup=False)
        yield FieldInput(self.field)
        told = f"default {self.field.default}" if self.field.value and self.field.default != "none" else ""
        if self.field.choices:
            told = ("<> " if self._plain else "‹› ") + " | ".join(self.field.choices)
        yield Static(told if self._wide else "", classes="told", markup=False)


class RecipePage(Page):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "other_view", "form/YAML"),
        Binding("f4", "save", "save", tooltip="Save the recipe as a file"),
        Binding("f5", "start", "start"),
    ]
    WHY = (
        "Everything that was said, as a recipe: the form and the YAML show one and the same text. Fields left empty have the "
        "default that stands in grey. What is wrong is told while it is typed, with its line, and the forecast follows every "
        "key.\n\nF4 saves the recipe where you want it (`finetune-tui run FILE` starts it any time); a run keeps its own "
        "copy. F5, or Enter on Start, starts it in the background: closing the app does not end it."
    )

    def __init__(self, wizard: Wizard) -> None:
        super().__init__(wizard if wizard.text else write(wizard, draft(wizard)))
        self.priced = Priced(self.wizard.text, None)
        self.yaml = False
        self._starting = False
        self._timer: Timer | None = None
        self._hardware: Any = None

    def body(self) -> ComposeResult:
        with Horizontal(id="start-row"):
            yield Button("Start", id="start", variant="primary", compact=True)
            yield Static("", id="verdict", markup=False)
        yield VerticalScroll(id="form", can_focus=False)
        yield TextArea(self.wizard.text, id="yaml", show_line_numbers=True, soft_wrap=False, compact=True)
        with Vertical(id="wrong"):
            yield Static("", id="wrong-text", markup=False)

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#yaml").display = False
        self._fill_form()
        self.query_one("#start").focus()
        self._judge()

        def probe() -> Any:
            from tui.machine_book import hardware

            return hardware()

        def known(hardware: Any) -> None:
            self._hardware = hardware
            self._judge()

        beside(self, probe, known)

    # ---- the two views -------------------------------------------------------------------------------------------

    def _fill_form(self) -> None:
        raw = read(self.wizard.text) or {}
        holder = self.query_one("#form", VerticalScroll)
        wide = self.app.size.width >= 76
        rows: list[Any] = []
        for section in form(raw):
            rows.append(Static(section.title, classes="section", markup=False))
            rows += [Row(field, wide, self.plain) for field in section.fields]
        holder.remove_children()
        holder.mount_all(rows)

    def action_other_view(self) -> None:
        if self.yaml and read(self.wizard.text) is None:
            self.notify("the form needs YAML that can be read: see below what is wrong", severity="warning")
            return
        self.yaml = not self.yaml
        area, fields = self.query_one("#yaml", TextArea), self.query_one("#form")
        area.display, fields.display = self.yaml, not self.yaml
        if self.yaml:
            area.load_text(self.wizard.text)
            area.focus()
        else:
            self._fill_form()
            self.query_one("#start").focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        source = event.input
        if not isinstance(source, FieldInput):
            return
        field = source.field
        if event.value == field.value:
            return  # as it was filled in
        source.field = replace(field, value=event.value)
        try:
            text = assign(self.wizard.text, field.path, value_of(event.value))
        except (InputError, KeyError, IndexError, TypeError):
            return  # the text was changed under the form; it is filled again when it is looked at
        self._changed(text)

    def on_text_area_changed(self, event: TextArea.Changed) -> None:
        if self.yaml:
            self._changed(event.text_area.text)

    def _changed(self, text: str) -> None:
        if text == self.wizard.text:
            return
        self.wizard = write(self.wizard, text)
        self._judge()
        if self._timer:
            self._timer.stop()
        self._timer = self.set_timer(PAUSE, lambda: keep.keep(self.wizard))

    # ---- judged as one types -------------------------------------------------------------------------------------

    def _judge(self) -> None:
        self.priced = price(self.wizard.text, Path.cwd(), self._hardware)
        self.put("verdict", self._verdict())
        lines = [
            Content.styled(str(problem).removeprefix("recipe, "), "$error") for problem in self.priced.problems[:6]
        ]
        more = len(self.priced.problems) - 6
        if more > 0:
            lines.append(Content.styled(f"and {more} more", "$error"))
        self.put("wrong-text", Content("\n").join(lines))
        self.query_one("#wrong").display = bool(lines)
        fields = {problem.field for problem in self.priced.problems}
        for source in self.query(FieldInput):
            source.set_class(".".join(map(str, source.field.path)) in fields, "wrong")
        self.query_one("#start", Button).disabled = bool(self.priced.problems) or self._starting

    def _verdict(self) -> Content:
        if self._starting:
            return Content.styled("checking the data and starting", "$accent")
        found = self.priced
        if found.problems:
            count = len(found.problems)
            return Content.styled(f"{'x' if self.plain else '✗'} {count} to mend before it can start", "bold $error")
        if found.plan is None:
            return Content.styled(f"no forecast: {found.unpriced}", "dim")
        stages = found.plan["stages"]
        worst = max(stages, key=lambda stage: stage["memory"]["process_mib"])
        seconds = sum(stage["time_s"]["value"] for stage in stages)
        sign = SIGNS[found.verdict or "fits"]
        return Content.assemble(
            (f"{sign[1] if self.plain else sign[0]} {found.verdict}  ", f"bold {sign[2]}"),
            f"{size(worst['memory']['process_mib'])} of {size(found.plan['hardware']['available_mib'])}",
            (f", about {span(seconds)}", ""),
        )

    # ---- save and start ------------------------------------------------------------------------------------------

    def action_save(self) -> None:
        from tui.screens.wizard.picker import Ask

        name = (read(self.wizard.text) or {}).get("name") or "recipe"
        self.app.push_screen(Ask("Save the recipe as", f"{name}.yaml", "a file"), self._save)

    def _save(self, word: str | None, over: bool = False) -> None:
        if not word:
            return
        path = Path(word).expanduser().absolute()
        path = path if path.suffix in (".yaml", ".yml") else path.with_name(path.name + ".yaml")
        if path.exists() and not over:
            from tui.screens.confirm import Confirm

            def answered(yes: bool | None) -> None:
                if yes:
                    self._save(word, over=True)

            self.app.push_screen(Confirm(f"{path} exists. Write over it?", "Write over", "Keep"), answered)
            return
        from engine.runs.files import write_atomically

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, self.wizard.text)
        except OSError as error:
            self.notify(f"{path} cannot be written: {error.strerror}", severity="error", timeout=15, markup=False)
            return
        self.notify(f"saved: finetune-tui run {path}", timeout=10, markup=False)

    def on_button_pressed(self) -> None:
        self.action_start()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return True

    def action_start(self) -> None:
        if self.priced.problems:
            self.notify(str(self.priced.problems[0]), severity="error", timeout=15, markup=False)
            return
        if self._starting:
            return
        if self.priced.verdict == "does not fit" and not self.wizard.over_no_fit:
            from tui.screens.confirm import Confirm

            def answered(yes: bool | None) -> None:
                if yes:
                    self.remember(replace(self.wizard, over_no_fit=True))
                    self._start()

            words = (
                "The forecast says that this does not fit into the memory that is free.\nIt will probably run out of it, try "
                "smaller micro-batches, and then fail. Escape goes back to the remedies.\n\nStart it all the same?"
            )
            self.app.push_screen(Confirm(words, "Start all the same", "No"), answered)
            return
        self._start()

    def _start(self) -> None:
        self._starting = True
        self._judge()
        text = self.wizard.text

        def work() -> str:
            from tui.steering import start_text

            return start_text(text, Path.cwd()).id

        def started(run_id: str) -> None:
            keep.forget()
            if self._timer:
                self._timer.stop()
            app = self.app
            app.pop_screen()
            app.watch_run(run_id)  # type: ignore[attr-defined]

        def failed(error: Exception) -> None:
            self._starting = False
            self._judge()
            self.put("wrong-text", Content.styled(str(error), "$error"))
            self.query_one("#wrong").display = True

        beside(self, work, started, failed)
