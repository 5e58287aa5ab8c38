"""Taking a run home: every form with what it is for, whether there is room, and the one being made."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import OptionList, ProgressBar, Static
from textual.widgets.option_list import Option

from engine.runs.directory import RunDirectory
from tui.screens.confirm import Confirm
from tui.widgets.footer import Footer

if TYPE_CHECKING:
    from engine.export.job import Progress, Result
    from engine.export.plan import Plan

LOOKING = "Looking at what the run made …"
QUESTION = "End the export?\nNothing of it is kept; it can be made again at any time."


class Export(Screen[None]):
    CSS = """
    #forms { width: 36; height: 1fr; border: none; padding: 0; }
    #forms > .option-list--option { padding: 0 1; }
    #about { height: 1fr; padding: 0 1; }
    #making { height: auto; padding: 0 1; }
    #bar { width: 100%; padding: 0 1; display: none; }
    #bar Bar { width: 1fr; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back"),
        Binding("enter", "make", "export"),
        Binding("t", "type(1)", "other type"),
        Binding("left_square_bracket", "stage(-1)", "stage before"),
        Binding("right_square_bracket", "stage(1)", "stage after"),
    ]

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self._run_directory = run
        self._stage: int | None = None
        """From 1; None for the last finished one."""
        self._stages: list[str] = []
        self._types: dict[str, str] = {}
        self._plans: dict[str, Plan] = {}
        self._made: dict[str, Result] = {}
        self._failed = ""
        self._working: str | None = None
        self._cancel = threading.Event()

    def compose(self) -> ComposeResult:
        yield Static(f"export {self._run_directory.id}", id="headline", markup=False)
        with Horizontal():
            yield OptionList(id="forms")
            with VerticalScroll():
                yield Static(LOOKING, id="about", markup=False)
        yield ProgressBar(id="bar", total=100, show_eta=False)
        yield Static("", id="making", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self._look()

    def on_unmount(self) -> None:
        self._cancel.set()

    # ---- what can be made ----------------------------------------------------------------------------------------

    @work(thread=True, exclusive=True, group="plan")
    def _look(self) -> None:
        """Plan every form, away from the screen's thread: it reads headers and asks disk and memory."""
        from engine.export.forms import FORMS
        from engine.export.plan import plan
        from engine.export.source import find_source
        from recipes.errors import InputError

        try:
            source = find_source(self._run_directory, self._stage)
            plans = {
                form.name: plan(source, form, self._types.get(form.name), self._run_directory.exports)
                for form in FORMS.values()
            }
        except InputError as error:
            self.app.call_from_thread(self._cannot, str(error))
            return
        done = [f"{stage.index + 1} {stage.method}" for stage in source.state.stages if self._finished(stage.index)]
        self.app.call_from_thread(self._show, plans, done, source.stage + 1, source.method)

    def _finished(self, index: int) -> bool:
        return (self._run_directory.output_folder(index) / "lineage.json").is_file()

    def _cannot(self, words: str) -> None:
        self.query_one("#about", Static).update(words)

    def _show(self, plans: dict[str, Plan], stages: list[str], stage: int, method: str) -> None:
        from tui.commands.export import size_words

        if not self.is_mounted:
            return
        forms = self.query_one("#forms", OptionList)
        before = forms.highlighted
        self._plans, self._stages, self._stage = plans, stages, stage
        headline = f"export {self._run_directory.id} after stage {stage} of {len(stages)} ({method.replace('_', ' ')})"
        self.query_one("#headline", Static).update(headline)
        options = []
        for name, found in plans.items():
            sign = (
                ("!" if self._plain else "✗")
                if found.problems
                else ("+" if self._plain else "✓")
                if name in self._made
                else " "
            )
            size = "" if name == "hub" else size_words(found.size)
            kind = f" {found.type}" if found.type else ""
            style = "dim" if found.problems else ""
            options.append(Option(Content.assemble((f"{name + kind:<22}{size:>9} {sign}", style)), id=name))
        forms.set_options(options)
        forms.highlighted = before if before is not None else 0
        forms.focus()
        self._about()
        self.refresh_bindings()

    @property
    def _plain(self) -> bool:
        return bool(self.app.ascii_only)  # type: ignore[attr-defined]

    def _chosen(self) -> Plan | None:
        forms = self.query_one("#forms", OptionList)
        place = forms.highlighted
        return None if place is None or not self._plans else list(self._plans.values())[place]

    def on_option_list_option_highlighted(self) -> None:
        self._about()
        self.refresh_bindings()

    def _about(self) -> None:
        from tui.commands.export import checked_words, size_words

        found = self._chosen()
        if found is None:
            return
        name = found.form.name
        parts: list[str | tuple[str, str]] = [(found.form.purpose[0].upper() + found.form.purpose[1:] + ".\n", "bold")]
        made = self._made.get(name)
        if made is not None:
            parts += [("\nDone: ", "bold $success"), f"{made.path}\n"]
            parts += [("next: ", "bold"), f"{made.next}\n", f"{checked_words(made.comparison)}\n"]
        if name == "hub":
            command = f"finetune-tui export {self._run_directory.id} --to hub --repo YOU/NAME --of adapter"
            parts.append(f"\nUploads only on your word, private unless --public:\n  {command}\n")
        else:
            disk, ram = self._room(found.disk, found.free_disk), self._room(found.ram, found.free_ram)
            parts.append(f"\nsize    {size_words(found.size)}\ndisk    needs {disk}\nmemory  needs {ram}\n")
            parts.append(f"checked in {found.precision}: loaded again, compared with the run\n")
            if not found.problems and not self._working:
                parts.append(("Enter makes it.\n", "bold"))
        if len(found.form.types) > 1:
            parts.append(f"types   {', '.join(found.form.types)} (t)\n")
        for problem in found.problems:
            parts.append((f"\nNot now: {problem}\n", "$error"))
        for note in () if found.problems else found.notes:
            parts.append((f"\nNote: {note}.\n", "$warning"))
        self.query_one("#about", Static).update(Content.assemble(*parts))

    @staticmethod
    def _room(needed: int, free: int) -> str:
        from tui.commands.export import size_words

        return f"{size_words(needed)}, {size_words(free)} free"

    # ---- making --------------------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if not self.is_mounted or action not in ("make", "type", "stage"):
            return True
        found = self._chosen()
        if found is None or self._working:
            return None
        if action == "make":
            return True if not found.problems and found.form.name != "hub" else None
        if action == "type":
            return True if len(found.form.types) > 1 else None
        wanted = (self._stage or 0) + int(str(parameters[0]))
        return True if 1 <= wanted <= len(self._stages) else None

    def on_option_list_option_selected(self) -> None:
        if self.check_action("make", ()):
            self.action_make()

    def action_type(self, by: int) -> None:
        found = self._chosen()
        if found is not None and found.form.types:
            place = found.form.types.index(found.type)
            self._types[found.form.name] = found.form.types[(place + by) % len(found.form.types)]
            self._made.pop(found.form.name, None)
            self._look()

    def action_stage(self, by: int) -> None:
        self._stage = (self._stage or 0) + by
        self._made = {}
        self._look()

    def action_make(self) -> None:
        found = self._chosen()
        if found is None or self._working:
            return
        self._working = found.form.name
        self._cancel.clear()
        self.query_one("#bar").display = True
        self.refresh_bindings()
        self._make(found.form.name, found.type, self._stage if self._stage != len(self._stages) else None)

    @work(thread=True, exclusive=True, group="make")
    def _make(self, form: str, kind: str, stage: int | None) -> None:
        from engine.export.job import export
        from engine.export.steps import Cancelled, ExportFailed
        from recipes.errors import InputError

        result, words = None, ""
        try:
            result = export(
                self._run_directory, form, kind=kind or None, stage=stage, replace=True, progress=self._tell,
                cancelled=self._cancel.is_set,
            )  # fmt: skip
        except Cancelled:
            words = "ended; nothing was kept"
        except (InputError, ExportFailed, OSError) as error:
            words = str(error)
        if self.is_running and self.app.is_running:
            self.app.call_from_thread(self._ended, form, result, words)

    def _tell(self, progress: Progress) -> None:
        """In the export's thread."""
        if self.is_running and self.app.is_running:
            self.app.call_from_thread(self._progress, progress)

    def _progress(self, progress: Progress) -> None:
        from tui.commands.export import progress_words

        if self.is_mounted and self._working:
            self.query_one("#making", Static).update(f"{self._working}: {progress_words(progress)}")
            done = 100 * (progress.part - 1 + progress.share) / progress.parts
            self.query_one("#bar", ProgressBar).update(progress=done)

    def _ended(self, form: str, result: Result | None, words: str) -> None:
        self._working = None
        if not self.is_mounted:
            return
        self.query_one("#bar").display = False
        if result is not None:
            self._made[form] = result
            words = f"{form}: done, {result.path}"
        self.query_one("#making", Static).update(
            words if result is not None else Content.styled(f"{form}: {words}", "$error")
        )
        self._look()

    def action_back(self) -> None:
        if not self._working:
            self.app.pop_screen()
            return

        def end(yes: bool | None) -> None:
            if yes:
                self._cancel.set()

        self.app.push_screen(Confirm(QUESTION, "End it", "Let it go on"), end)
