"""Several runs side by side: their charts over each other, what their recipes differ in, their gates."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import OptionList, Static, TabbedContent, TabPane
from textual.widgets.option_list import Option

from engine.runs.directory import RunDirectory, find_run, list_runs
from tui.compared import Reader
from tui.screens.help import HELP_KEY
from tui.view.comparison import ABSENT, MARKERS, MOST, Compared, Comparison, GateRow, compare, overlay
from tui.widgets.chart import ChartStyle
from tui.widgets.footer import Footer
from tui.widgets.overlay import OverlayChart
from tui.words import ascii_words

REFRESH = 1.0
TABS = ("differences", "gates")
HELP = """\
KEYS
  Tab n        the next gauge              Shift+Tab b  the one before
  ] [          the next stage, the one before
  l            logarithmic scale           m   how much the lines are smoothed
  1 2          what the recipes differ in, the gates
  Esc          back

  Every run has a letter, a sign that stands along its line, and a colour. Stages
  find each other by their method. A target is drawn where all runs have the same.
"""


class Compare(Screen[None]):
    HELP = HELP
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back"),
        Binding("tab,n", "gauge(1)", "gauge", key_display="tab", priority=True),
        Binding("shift+tab,b", "gauge(-1)", "gauge before", show=False, priority=True),
        Binding("right_square_bracket", "stage(1)", "stage", key_display="]"),
        Binding("left_square_bracket", "stage(-1)", "stage before", show=False),
        Binding("l", "log_scale", "log"),
        Binding("m", "smooth", "smooth", show=False),
        *(Binding(str(number + 1), f"tab('{name}')", name, show=False) for number, name in enumerate(TABS)),
    ]

    def __init__(self, run_ids: Sequence[str]) -> None:
        super().__init__()
        self._directories: list[RunDirectory] = [find_run(one) for one in run_ids][:MOST]
        self._runs: list[Compared] = []
        self._found: Comparison | None = None
        self._place: tuple[str, str] | None = None
        """Stage and gauge of the chart."""
        self._style = ChartStyle()
        self._leaving = threading.Event()

    def compose(self) -> ComposeResult:
        plain = self.app.ascii_only  # type: ignore[attr-defined]
        yield Static("reading the runs", id="legend", markup=False)
        yield OverlayChart(plain, id="overlay")
        with TabbedContent(id="tabs", initial="differences"):
            for name in TABS:
                with TabPane(name.capitalize(), id=name), VerticalScroll():
                    yield Static("", id=f"{name}-text", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self._keep_reading()

    def on_unmount(self) -> None:
        self._leaving.set()

    def on_resize(self) -> None:
        if self._found is not None:
            self._fill(self._found)

    @work(thread=True, exclusive=True, group="book")
    def _keep_reading(self) -> None:
        reader, shown = Reader(self._directories), None
        while not self._leaving.is_set():
            runs, news = reader.read()
            statuses = [run.status for run in runs]
            if news or statuses != shown:
                shown = statuses
                found = compare(runs)
                if not self._leaving.is_set():
                    self.app.call_from_thread(self._show, runs, found)
            self._leaving.wait(REFRESH)

    def _show(self, runs: list[Compared], found: Comparison) -> None:
        self._runs, self._found = runs, found
        places = [(stage, key) for stage, key, _ in found.charts]
        if self._place not in places:
            self._place = places[0] if places else None
        self._draw()
        self._fill(found)
        self.refresh_bindings()

    def _draw(self) -> None:
        if self._place is None or self._found is None:
            return
        data = overlay(self._runs, *self._place)
        number = [(stage, key) for stage, key, _ in self._found.charts].index(self._place) + 1
        words = f"{number} of {len(self._found.charts)}, {self._style.words().split(',')[0]}"
        self.query_one(OverlayChart).show(data, self._style, f"  {words}{', log scale' if self._style.log else ''}")

    # ---- text ----------------------------------------------------------------------------------------------------

    def _fill(self, found: Comparison) -> None:
        plain = self.app.ascii_only  # type: ignore[attr-defined]
        width = self.size.width - 4
        roles = [f"$series-{place}" for place in range(MOST)]
        legend = []
        for place, (run, status) in enumerate(zip(found.ids, found.statuses, strict=True)):
            sign = MARKERS[place][1 if plain else 0]
            line = Content.assemble(
                (f"{chr(ord('A') + place)} {sign} ", f"bold {roles[place]}"), (run, "bold"), (f"  {status}", "dim")
            )
            legend.append(line.truncate(width + 2, ellipsis=True))
        self.query_one("#legend", Static).update(Content("\n").join(legend))
        rows = [(row.field, [(value, "") for value in row.values]) for row in found.differences]
        self._table("differences", rows, "the recipes are the same", width)
        gates = [(row.words, [self._cell(row, place, plain) for place in range(len(found.ids))]) for row in found.gates]
        self._table("gates", gates, "no gate has been decided yet", width)

    def _cell(self, row: GateRow, place: int, plain: bool) -> tuple[str, str]:
        cell = row.cells[place]
        if cell is None:
            return (ABSENT, "dim")
        good, bad = ("+", "!") if plain else ("✓", "✗")
        words = f"{good if cell.passed else bad} {row.figures(place)}"
        return (words, "$text-success" if cell.passed else "$text-error")

    def _table(self, name: str, rows: list[tuple[str, list[tuple[str, str]]]], empty: str, width: int) -> None:
        plain = self.app.ascii_only  # type: ignore[attr-defined]
        rows = [(ascii_words(field) if plain else field, cells) for field, cells in rows]
        if not rows:
            self.query_one(f"#{name}-text", Static).update(Content.styled(empty, "dim"))
            return
        names = min(max(len(field) for field, _ in rows), max(16, width // 3))
        runs = len(rows[0][1])
        room = max(8, (width - names - 2) // runs - 2)
        columns = [min(room, max(4, *(len(cells[place][0]) for _, cells in rows))) for place in range(runs)]
        heading = [(" " * (names + 2), "")]
        heading += [
            (f"{chr(ord('A') + place):<{column + 2}}", f"bold $series-{place}") for place, column in enumerate(columns)
        ]
        lines = [Content.assemble(*heading)]
        for field, cells in rows:
            parts = [(f"{_cut(field, names):<{names}}  ", "dim")]
            for (text, style), column in zip(cells, columns, strict=True):
                parts.append((f"{_cut(ascii_words(text) if plain else text, column):<{column}}  ", style))
            lines.append(Content.assemble(*parts))
        self.query_one(f"#{name}-text", Static).update(Content("\n").join(lines))

    # ---- what can be done ----------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("gauge", "log_scale", "smooth"):
            return self._place is not None
        if action == "stage":
            return self._found is not None and len({stage for stage, _, _ in self._found.charts}) > 1
        return True

    def action_gauge(self, by: int) -> None:
        if self._found is not None and self._place is not None:
            places = [(stage, key) for stage, key, _ in self._found.charts]
            self._place = places[(places.index(self._place) + by) % len(places)]
            self._draw()

    def action_stage(self, by: int) -> None:
        """The same gauge of another stage, else its first."""
        if self._found is None or self._place is None:
            return
        stages = list(dict.fromkeys(stage for stage, _, _ in self._found.charts))
        stage = stages[(stages.index(self._place[0]) + by) % len(stages)]
        gauges = [key for name, key, _ in self._found.charts if name == stage]
        self._place = (stage, self._place[1] if self._place[1] in gauges else gauges[0])
        self._draw()

    def action_log_scale(self) -> None:
        self._style = replace(self._style, log=not self._style.log)
        self._draw()

    def action_smooth(self) -> None:
        self._style = self._style.smoother()
        self._draw()

    def action_tab(self, name: str) -> None:
        self.query_one("#tabs", TabbedContent).active = name

    def action_back(self) -> None:
        self.app.pop_screen()


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


class PickRuns(ModalScreen[list[str] | None]):
    """Mark two runs or more. Dismissed with their ids, oldest first, or None."""

    HELP = "KEYS\n  Space    mark a run, or take the mark off\n  Enter    compare the marked ones\n  Esc      back\n"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q", "close", "back"),
        Binding("space", "mark", "mark", priority=True),
        Binding("enter", "compare", "compare", priority=True),
        HELP_KEY,
    ]

    def __init__(self, marked: Sequence[str] = ()) -> None:
        super().__init__()
        self._marked = set(marked)
        self._ids = [run.id for run in reversed(list_runs())]

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static("", id="question", markup=False)
            if len(self._ids) >= 2:
                yield OptionList(*(Option(self._line(one), one) for one in self._ids), id="marked")

    def on_mount(self) -> None:
        self._say()

    def _line(self, run_id: str) -> Content:
        """The mark in letters: colour alone would not say it."""
        return Content(f"{'[x]' if run_id in self._marked else '[ ]'} {run_id}")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self._toggle(event.option_index)  # by a click; Enter compares

    def action_mark(self) -> None:
        if self.query(OptionList) and (place := self.query_one(OptionList).highlighted) is not None:
            self._toggle(place)

    def _toggle(self, place: int) -> None:
        self._marked ^= {self._ids[place]}
        self.query_one(OptionList).replace_option_prompt_at_index(place, self._line(self._ids[place]))
        self._say()

    def _say(self) -> None:
        count = len(self._marked)
        words = f"Space marks, Enter compares ({count} marked)" if count >= 2 else "Mark two runs or more with Space"
        if count > MOST:
            words = f"{count} are marked: at most {MOST} can be told apart"
        if len(self._ids) < 2:
            words = "There are not two runs yet. Esc: back"
        self.query_one("#question", Static).update(words)

    def action_compare(self) -> None:
        if 2 <= len(self._marked) <= MOST:
            self.dismiss([one for one in reversed(self._ids) if one in self._marked])
        else:
            self.app.bell()

    def action_close(self) -> None:
        self.dismiss(None)
