"""The runs with their state at a glance, and what can be done to each."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from tui.widgets.footer import Footer

if TYPE_CHECKING:
    from engine.runs.directory import RunDirectory
    from tui.run_book import RunLine
    from tui.view.machine_view import Row

REFRESH = 1.0
BAR = 20
SIGNS = {
    "done": ("✓", "+", "$success"), "failed": ("✗", "!", "$error"), "running": ("▶", ">", "$primary"),
    "queued": ("⋯", "~", "$secondary"), "paused": ("‖", "=", "$warning"), "stopped": ("■", "#", "$warning"),
    "interrupted": ("⚡", "!", "$warning"), "created": ("·", ".", ""),
}  # fmt: skip
EMPTY = """\
No runs yet. Three ways to begin:

Press n for a new recipe. A few questions lead to the method that fits what you want, then to your model and your \
data; whether it fits into memory and how long it takes is said before anything starts.

Press d to run the demo: it teaches a small model new facts (SFT), then a warmer tone (DPO), in a few minutes, without \
network or GPU.

Press i to look a dataset over: what it is, what is wrong with it, which methods it serves.

A recipe of yours: `finetune-tui run my.yaml`.
"""
HELP = """\
KEYS
  Enter      open the run            n        a new recipe, step by step
  d          start the demo          i        look a dataset over
  r          resume                  p        pause at the next step
  s          stop at the next step   x        remove a run (both ask)
  c          chat with the run       e        export: take it home
  v          compare runs            F2       settings
  Ctrl+Q, q  leave; runs go on in the background
  Ctrl+P, :  every command by name   ?, F1    this page
  In zellij and VS Code, which keep Ctrl+Q and Ctrl+P, q and : do the same.

WORDS
  loss       of the training batch, per token; its target is to fall
  KL est     how far the model has moved from where the stage began, in nats per
             token, exact, at the positions of the training batch (an estimate of
             what the gate measures on the model's own completions)
  margin     how much more a preference stage's policy prefers the chosen
             completion than its reference does, times beta (the reward of DPO)
  ┃ or |     in a gauge: the target, from the method's card or the recipe
  gate       a figure measured on held-out data against its limit; n is how many
             cases are behind it
  paused     at a checkpoint; resume goes on with the very next step
  interrupted  nobody works on it: it was killed, or the machine went down;
             resume carries on, to the bit
"""


class Home(Screen[None]):
    HELP = HELP
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new", "new"),
        Binding("d", "demo", "demo"),
        Binding("i", "data", "data", tooltip="Look a dataset over"),
        Binding("enter", "open", "open"),
        Binding("r", "steer('resume')", "resume"),
        Binding("p", "steer('pause')", "pause"),
        Binding("s", "steer('stop')", "stop"),
        Binding("x,delete", "steer('remove')", "remove", show=False),
        Binding("v", "app.compare", "compare", show=False),
        Binding("e", "export", "export", show=False),
        Binding("c", "app.chat", "chat"),
        Binding("q", "app.quit", "leave", show=False),  # zellij and VS Code keep Ctrl+Q for themselves
    ]

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[RunLine] = []
        self._seen = False
        self._leaving = threading.Event()
        self._in_front = threading.Event()
        self._in_front.set()

    def compose(self) -> ComposeResult:
        yield Static("finetune-tui", id="machine", markup=False)
        yield Static("", id="hardware", markup=False)
        yield OptionList(id="runs")
        yield Static(EMPTY, id="empty", markup=False)
        yield Static("", id="why", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#empty").display = False
        self.call_after_refresh(self._look_after)  # the first frame waits for nothing

    def on_unmount(self) -> None:
        self._leaving.set()
        self._in_front.set()

    def on_screen_suspend(self) -> None:
        self._in_front.clear()  # nobody looks: nothing is read

    def on_screen_resume(self) -> None:
        self._in_front.set()

    # ---- what there is -------------------------------------------------------------------------------------------

    @work(thread=True, exclusive=True, group="book")
    def _look_after(self) -> None:
        """Read the runs again and again, away from the screen's thread."""
        from engine.hardware.card import machine_line
        from tui import machine_book
        from tui.run_book import RunBook
        from tui.view.machine_view import card

        book, shown = RunBook(), None
        looks = 0
        while not self._leaving.is_set():
            if not self._in_front.wait(REFRESH):
                continue
            if looks % 30 == 0:
                self.app.call_from_thread(
                    self.query_one("#machine", Static).update, f"finetune-tui on {machine_line()}"
                )
            lines = book.lines()
            if lines != shown:
                shown = lines
                self.app.call_from_thread(self._show, lines)
            if looks % 30 == 0:  # after the runs: it takes longer, and they matter more
                self.app.call_from_thread(self._show_hardware, card(machine_book.machine()))
            looks += 1
            self._leaving.wait(REFRESH)

    def _show_hardware(self, rows: list[Row]) -> None:
        plain = self.app.ascii_only  # type: ignore[attr-defined]
        lines = []
        for row in rows:
            bar = "" if row.free is None else _bar(row.free, plain)
            lines.append(
                Content.assemble(
                    (f"{row.name:<10}", "dim"), (bar, "$success" if (row.free or 0) > 0.25 else "$warning"), row.words
                )
            )
        self.query_one("#hardware", Static).update(Content("\n").join(lines))

    def _show(self, lines: list[RunLine]) -> None:
        options = self.query_one("#runs", OptionList)
        chosen = self._chosen()
        self._lines = lines
        self.query_one("#empty").display = not lines
        options.display = bool(lines)
        options.set_options([Option(self._words(line), id=line.run.id) for line in lines])
        if lines:
            ids = [line.run.id for line in lines]
            first = 0 if self._seen else _wants_attention(lines)
            options.highlighted = ids.index(chosen.run.id) if chosen and chosen.run.id in ids else first
            self._seen = True
            if self.focused is None:
                options.focus()
        self._say_why()
        self.refresh_bindings()

    def _words(self, line: RunLine) -> Content:
        sign, plain, style = SIGNS.get(line.status, ("·", ".", ""))
        if line.status == "done" and not line.passed:
            sign, plain, style = "✗", "!", "$warning"
        ascii_only = self.app.ascii_only  # type: ignore[attr-defined]
        stages = line.stages.replace("→", "->") if ascii_only else line.stages
        return Content.assemble(
            (f"{plain if ascii_only else sign} {line.status:<11} ", f"bold {style}".strip()),
            (line.run.id, "bold"), f"\n  {stages}", (f"  {line.created}\n", "dim"), f"  {line.words}",
        )  # fmt: skip

    def _chosen(self) -> RunLine | None:
        place = self.query_one("#runs", OptionList).highlighted
        return self._lines[place] if place is not None and place < len(self._lines) else None

    def chosen_run(self) -> RunDirectory | None:
        line = self._chosen()
        return line.run if line else None

    def on_option_list_option_highlighted(self) -> None:
        self._say_why()
        self.refresh_bindings()

    def _say_why(self) -> None:
        line = self._chosen()
        words = "" if line is None or line.can_resume else f"It cannot be resumed: {line.why_not}."
        if line is not None and line.status == "interrupted" and line.can_resume:
            words = "It was interrupted, and nothing is lost: r carries on, Enter watches."
        self.query_one("#why", Static).update(words)

    # ---- what can be done ----------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What does not work now is not in the footer; what works and is not there is in the help and the palette."""
        line = self._chosen() if self.is_mounted else None
        if action in ("open", "export", "app.chat"):
            return line is not None
        if action != "steer":
            return True
        if line is None:
            return False
        works = line.status in ("running", "queued")
        allowed = {"resume": line.can_resume, "pause": works, "stop": works, "remove": not works}
        return allowed[str(parameters[0])]

    def on_option_list_option_selected(self) -> None:
        self.action_open()

    def action_open(self) -> None:
        line = self._chosen()
        if line:
            self.app.watch_run(line.run.id)  # type: ignore[attr-defined]

    def action_export(self) -> None:
        from tui.screens.export import Export

        line = self._chosen()
        if line:
            self.app.push_screen(Export(line.run))

    def action_steer(self, word: str) -> None:
        line = self._chosen()
        if line:
            from tui.screens.asking import ask_and_do

            ask_and_do(self, word, line.run)

    def action_data(self) -> None:
        from tui.screens.data import DataScreen

        self.app.push_screen(DataScreen())

    def action_new(self) -> None:
        from tui.screens.wizard.page import open_wizard

        open_wizard(self.app)

    @work(thread=True)
    def action_demo(self) -> None:
        from tui.steering import Refused, start_demo

        self.app.call_from_thread(self.notify, "starting the demo")
        try:
            run = start_demo()
        except Refused as refused:
            self.app.call_from_thread(self.notify, str(refused), severity="error", timeout=15)
            return
        self.app.call_from_thread(self.app.watch_run, run.id)  # type: ignore[attr-defined]


def _wants_attention(lines: list[RunLine]) -> int:
    """The newest run that was interrupted, unless one is at work: that is where the cursor begins."""
    if any(line.status in ("running", "queued") for line in lines):
        return 0
    return next((place for place, line in enumerate(lines) if line.status == "interrupted" and line.can_resume), 0)


def _bar(free: float, plain: bool) -> str:
    taken = round((1 - free) * BAR)
    return f"{'#' * taken}{'.' * (BAR - taken)}  " if plain else f"{'█' * taken}{'░' * (BAR - taken)}  "
