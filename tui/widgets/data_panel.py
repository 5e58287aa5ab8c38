"""A dataset on the screen: where it is, how its columns are read, and everything that the inspection found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from engine.data.rows import ALSO, SUFFIXES
from recipes.errors import InputError
from recipes.resources import hub_dataset, resolve_source
from tui.fetching import fetching_words
from tui.view.dataset_view import Line, faults, report
from tui.wizard.draft import absolute
from tui.wizard.inspecting import Asked, Inspector, Looked
from tui.wizard.mapping import cycled, for_recipe, given_by_hand, parts_of
from tui.wizard.state import VERIFIERS, Source, questions_about, unanswered

FILES = (*SUFFIXES, *ALSO)
LABEL = 17


class DataPanel(Vertical):
    """``Changed`` whenever the source is another; ``Done`` when it is to be used. ``method`` None: just to look."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "turn(-1)", "change", key_display="←→"),
        Binding("right", "turn(1)", show=False),
        Binding("pagedown,j", "read(1)", "more", key_display="PgDn"),
        Binding("pageup,k", "read(-1)", show=False),
    ]

    class Changed(Message):
        def __init__(self, source: Source) -> None:
            super().__init__()
            self.source = source

    class Done(Message):
        def __init__(self, source: Source, looked: Looked) -> None:
            super().__init__()
            self.source, self.looked = source, looked

    def __init__(
        self,
        source: Source,
        method: str | None = None,
        model: str | None = None,
        limit: int | None = None,
        verifier: Callable[[Source], dict[str, Any] | None] = lambda source: None,
    ) -> None:
        """``verifier`` says which one the recipe would have with a source."""
        super().__init__(id="data-panel")
        self.verifier = verifier
        self.source, self.method, self.model, self.limit = source, method, model, limit
        self._given: dict[str, str] = dict(source.columns)
        self._inspector: Inspector | None = None
        self.looked: Looked | None = None
        self._progress = ""

    def compose(self) -> ComposeResult:
        yield OptionList(id="data-rows")
        with VerticalScroll(id="data-report", can_focus=False):
            yield Static("", id="data-text", markup=False)

    def on_mount(self) -> None:
        self.query_one("#data-rows", OptionList).focus()
        self._draw()
        if self.source.path:
            self._inspect()
        else:
            self.call_after_refresh(self._ask_path, "path")

    def on_unmount(self) -> None:
        if self._inspector:
            self._inspector.cancel()

    def on_resize(self) -> None:
        self._draw()

    @property
    def plain(self) -> bool:
        return bool(self.app.ascii_only)  # type: ignore[attr-defined]

    # ---- looking -------------------------------------------------------------------------------------------------

    def _inspect(self) -> None:
        """Ask the helper; an inspection under way of something else is called off."""
        asked = Asked(
            self.source.path, self.method, dict(self._given), self.source.heldout, self.model, self.limit,
            self.verifier(self.source),
        )  # fmt: skip
        if self._inspector:
            if self._inspector.asked == asked and self.looked is None:
                return
            self._inspector.cancel()
        self.looked, self._progress = None, "looking it over"
        app = self.app

        def deliver(call: Any, *words: Any) -> None:
            try:
                app.call_from_thread(self._deliver, asked, call, words)
            except RuntimeError:
                pass  # the app has ended

        self._inspector = Inspector(
            asked, lambda looked: deliver(self._ended, looked), lambda *words: deliver(self._told, *words)
        )
        self._inspector.start()
        self._draw()

    def _deliver(self, asked: Asked, call: Any, words: tuple[Any, ...]) -> None:
        if self.is_attached and self._inspector is not None and self._inspector.asked == asked:
            call(*words)

    def _told(self, done: int, size: int, rows: int | None) -> None:
        if rows is None:
            self._progress = fetching_words(done, size)
        else:
            self._progress = f"looking it over: {done / max(1, size):.0%} of {size / 2**20:.0f} MiB, {rows} rows"
        self._draw_go()

    def _ended(self, looked: Looked) -> None:
        self.looked, self._progress = looked, ""
        if looked.found:
            reading = looked.found["reading"]
            columns = for_recipe(reading, list(looked.found["columns"]), self.method)
            self._set(replace(self.source, columns=columns, rows=looked.found["rows"] - looked.found["duplicates"]))
        self._draw()

    def _set(self, source: Source) -> None:
        if source != self.source:
            self.source = source
            self.post_message(self.Changed(source))

    # ---- drawing -------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        rows = self.query_one("#data-rows", OptionList)
        before = rows.get_option_at_index(rows.highlighted).id if rows.highlighted is not None else None
        options = [Option(content, id=key) for key, content in self._rows()]
        rows.set_options(options)
        ids = [option.id for option in options]
        rows.highlighted = ids.index(before) if before in ids else 0
        self._draw_report()

    def _draw_go(self) -> None:
        rows = self.query_one("#data-rows", OptionList)
        key, content = self._rows()[0]
        if rows.option_count and rows.get_option_at_index(0).id == key:
            rows.replace_option_prompt_at_index(0, content)

    def _rows(self) -> list[tuple[str, Content]]:
        plain, looked = self.plain, self.looked
        rows = [("go", self._go_words())]
        rows.append(("path", self._row("data", self.source.path or "none yet", "Enter names it")))
        unset = "none: a tenth of the prompts is kept out of training" if self.method else "none"
        rows.append(("heldout", self._row("held out", self.source.heldout or unset, "")))
        for number, reading in enumerate(looked.readings if looked else ()):
            parts = ", ".join(f"{ours} = {theirs}" for ours, theirs in reading["columns"].items())
            rows.append(
                (f"reading:{number}", self._row("this way?", f"{reading['layout']}: {parts}", "Enter takes it"))
            )
        if looked and looked.found:
            reading = looked.found["reading"]
            sure = f"{reading['layout']}, {reading['confidence']:.0%} sure"
            rows.append(("layout", self._row("read as", sure, "")))
            hint = "your columns; the arrow keys change them"
            for number, (part, column) in enumerate(reading["columns"].items()):
                arrows = ("<", ">") if plain else ("‹", "›")
                rows.append(
                    (
                        f"column:{part}",
                        self._row(f"  {part}", f"{arrows[0]} {column} {arrows[1]}", "" if number else hint),
                    )
                )
        for number, part in enumerate(self._by_hand()):
            arrows = ("<", ">") if plain else ("‹", "›")
            word = f"{arrows[0]} {self._given.get(part, 'which column?')} {arrows[1]}"
            rows.append((f"column:{part}", self._row(f"  {part}", word, "" if number else "the arrow keys say it")))
        for name, question, example in questions_about(self.method or ""):
            value = self.source.words.get(name, "")
            rows.append((f"word:{name}", self._row(name, value or f"({example})", question)))
        return rows

    def _by_hand(self) -> tuple[str, ...]:
        """The parts whose columns are to be named, where the names say nothing."""
        looked = self.looked
        unknown = looked is not None and looked.found is None and looked.columns and not looked.readings
        return parts_of(self.method) if unknown else ()

    def _row(self, label: str, value: str, hint: str) -> Content:
        wide = max(20, self.app.size.width - 3)
        text = Content.assemble((f"{label:<{LABEL}}", "dim"), value, (f"   {hint}" if hint else "", "dim"))
        return text.truncate(wide, ellipsis=True)

    def _go_words(self) -> Content:
        tick, cross = ("+", "x") if self.plain else ("✓", "✗")
        if self._progress:
            return Content.assemble(("… " if not self.plain else "... ", "$accent"), self._progress)
        looked = self.looked
        if not self.source.path:
            return Content.styled(f"{cross} which data? Enter on the next line names them", "$warning")
        if looked is None:
            return Content("")
        if looked.readings:
            return Content.styled(
                f"{cross} it can be read in {len(looked.readings)} ways: say which is meant", "$warning"
            )
        if self._by_hand():
            return Content.styled(f"{cross} which of your columns plays which part? Say it below", "$warning")
        if looked.problems or looked.unserved:
            return Content.styled(f"{cross} these data cannot be used as they are: see below", "$error")
        open_ones = unanswered(self.method or "", self.source)
        if open_ones:
            return Content.styled(f"{cross} still open: {open_ones[0]}", "$warning")
        if looked.all_problems:
            count = looked.found["bad_rows"] if looked.found else 0
            return Content.styled(f"{cross} a run would refuse them ({count} bad rows): see below", "$error")
        word = "Go on with these rows" if self.method else "These rows can be used"
        return Content.styled(f"{tick} {word}", "bold $success")

    def _draw_report(self) -> None:
        width = max(30, self.app.size.width - 6)
        lines: list[Line] = []
        if self.looked is None:
            text = Content.styled(self._progress, "dim")
        else:
            looked = self.looked
            if looked.found:
                lines = report(looked.found, self.method, width, self.plain)
            else:
                lines = faults(list(looked.problems), width)
            text = Content("\n").join(Content.assemble(*one.parts) for one in lines)
        self.query_one("#data-text", Static).update(text)

    # ---- keys ----------------------------------------------------------------------------------------------------

    @property
    def pointed(self) -> str:
        rows = self.query_one("#data-rows", OptionList)
        return str(rows.get_option_at_index(rows.highlighted).id) if rows.highlighted is not None else ""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "turn":
            turns = self.pointed.startswith("column:") or self.pointed == "word:verifier"
            return True if turns else None
        return True

    def on_option_list_option_highlighted(self) -> None:
        self.refresh_bindings()

    def action_read(self, by: int) -> None:
        scroll = self.query_one("#data-report", VerticalScroll)
        (scroll.scroll_page_down if by > 0 else scroll.scroll_page_up)(animate=False)

    def action_turn(self, by: int) -> None:
        kind, _, name = self.pointed.partition(":")
        if kind == "column" and self.looked and self.looked.found:
            self._given = cycled(self.looked.found["reading"], name, list(self.looked.found["columns"]), by)
            self._inspect()
        elif kind == "column" and self.looked:
            self._given = given_by_hand(self._given, name, list(self.looked.columns), by)
            if set(self._given) >= set(self._by_hand()):
                self._inspect()
            else:
                self._draw()
        elif name == "verifier":
            kinds = VERIFIERS[self.method or "grpo"]
            now = self.source.words.get("verifier") or kinds[0]
            self._word("verifier", kinds[(kinds.index(now) + by) % len(kinds)] if now in kinds else kinds[0])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        kind, _, name = str(event.option.id).partition(":")
        if kind == "go":
            self._go()
        elif kind in ("path", "heldout"):
            self._ask_path(kind)
        elif kind == "reading" and self.looked:
            self._given = dict(self.looked.readings[int(name)]["columns"])
            self._inspect()
        elif kind == "word":
            self._ask_word(name)
        else:
            self.action_turn(1)

    def _go(self) -> None:
        looked = self.looked
        if not self.source.path:
            self._ask_path("path")
        elif looked and looked.usable and not unanswered(self.method or "", self.source):
            self.post_message(self.Done(self.source, looked))
        elif looked and looked.readings:
            self.query_one("#data-rows", OptionList).highlighted = 3
        elif looked and (open_ones := unanswered(self.method or "", self.source)):
            names = [name for name, question, _ in questions_about(self.method or "") if question in open_ones]
            if looked.usable:
                self._ask_word(names[0])

    def _ask_path(self, kind: str) -> None:
        from tui.screens.wizard.picker import PathPicker

        optional = kind == "heldout"
        title = "Which data?" if kind == "path" else "Held-out rows, which are never trained on"
        hint = "JSON lines, JSON, CSV, TSV, Parquet, text, a directory of those, or owner/name on the hub"
        if optional:
            hint = "Without a file a tenth of the prompts is kept out of training."

        def checked(word: str) -> str:
            if hub_dataset(word, Path.cwd()):
                return ""  # fetched, or refused, when it is looked over
            try:
                resolve_source(absolute(word), Path.cwd(), "data")
            except InputError as error:
                return str(error.problems[0])
            return ""

        def given(word: str | None) -> None:
            if word is None:
                return
            word = absolute(word.rstrip("/") if len(word) > 1 else word)
            if kind == "path":
                self._given = {}
                same = word == self.source.path
                self._set(
                    replace(self.source, path=word, heldout=self.source.heldout if same else "", columns={}, rows=0)
                )
            else:
                self._set(replace(self.source, heldout=word))
            self._inspect()

        value = self.source.path if kind == "path" else self.source.heldout
        self.app.push_screen(PathPicker(title, value, FILES, optional, hint, checked), given)

    def _ask_word(self, name: str) -> None:
        from tui.screens.wizard.picker import Ask, PathPicker

        if name == "verifier":
            self.action_turn(1)
            return
        _, question, example = next(one for one in questions_about(self.method or "") if one[0] == name)
        value = self.source.words.get(name, "")
        if name != "judge":
            self.app.push_screen(Ask(question, value, example), lambda word: self._word(name, word))
            return
        hint = "YAML with `preferred:` and `rejected:`, a regular expression each; lab/tone.yaml is one."
        self.app.push_screen(
            PathPicker(question, value, (".yaml", ".yml"), self.method != "steering", hint, self._judge_fault),
            lambda word: self._word(name, word if word is None else absolute(word)),
        )

    def _judge_fault(self, word: str) -> str:
        from engine.verify.judge import load_judge

        try:
            load_judge(resolve_source(absolute(word), Path.cwd(), "judge"))
        except InputError as error:
            return str(error.problems[0])
        return ""

    def _word(self, name: str, word: str | None) -> None:
        if word is None:
            return
        self._set(replace(self.source, words={**self.source.words, name: word}))
        if name == "verifier" and self.source.path:
            self._inspect()  # it is tried on the answers
        else:
            self._draw()
