"""One chart over the whole screen: every gauge of the stage, a window of its steps, followed or scrolled back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from engine.runs.directory import RunDirectory
from tui.view.gauges import Look, Zoom
from tui.view.run_view import RunView
from tui.widgets.chart import Chart, ChartStyle
from tui.widgets.footer import Footer
from tui.widgets.stage_picture import StagePicture
from tui.words import ascii_words

NARROWEST = 10
"""Steps below which a window is not narrowed."""
HELP = """\
KEYS
  Tab n        the next gauge              Shift+Tab b  the one before
  + -          fewer steps, more steps     a            all of them
  ← →          scroll back, scroll on      f            follow the newest step
  l            logarithmic scale           m            how much it is smoothed
  [ ]          the stage before, after     Esc z        back to the run

  The dots are the raw values, the line their exponential moving average, debiased
  as in Adam. A dotted line across is the target. A gap with ! above is a value that
  was not a number.
"""
PICTURE_HELP = """\
KEYS
  Esc z        back to the run

  Calibration: each point is a fifteenth of the held-out answers, accuracy over stated
  confidence. On the diagonal the model's word can be trusted; below it, it is too sure.
  Abliteration: each point is a trial of the search, refusals over KL on the search
  prompts. The front is what no other trial beats in both; the pick is the lowest KL
  among those that hardly refuse, unless the recipe names another.
"""


class Zoomed(Screen[ChartStyle]):
    """Dismissed with the style that was chosen here. ``look`` asks the monitor for another view."""

    HELP = HELP
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,z", "back", "run"),
        Binding("tab,n", "gauge(1)", "gauge", key_display="tab", tooltip="The next gauge", priority=True),
        Binding("shift+tab,b", "gauge(-1)", "gauge before", show=False, priority=True),
        Binding("plus,equals_sign", "narrow", "in", key_display="+", tooltip="Fewer steps"),
        Binding("minus", "widen", "out", key_display="-", tooltip="More steps"),
        Binding("left", "scroll(-1)", "back", key_display="←", tooltip="Scroll back; → on"),
        Binding("right", "scroll(1)", "on", key_display="→", show=False),
        Binding("f,end", "follow", "follow"),
        Binding("a,home", "all", "all steps", show=False),
        Binding("l", "log_scale", "log"),
        Binding("m", "smooth", "smooth", show=False),
        Binding("left_square_bracket", "stage(-1)", "stage before", show=False),
        Binding("right_square_bracket", "stage(1)", "stage after", show=False),
    ]

    def __init__(self, run: RunDirectory, view: RunView, look: Callable[[Look], None], style: ChartStyle) -> None:
        super().__init__()
        self._run_directory = run
        self._view = view
        self._ask = look
        self._style = style
        self._look = Look(view.shown, view.charts[0].key)

    @property
    def _zoom(self) -> Zoom | None:
        return self._view.zoom

    def compose(self) -> ComposeResult:
        yield Static("", id="zoom-title", markup=False)
        yield Chart(self.app.ascii_only, id="zoomed")  # type: ignore[attr-defined]
        yield Static("", id="zoom-figures", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.show(self._view)

    def show(self, view: RunView) -> None:
        self._view = view
        zoom = view.zoom
        if zoom is None or not self.query(Chart):  # the view may come before the widgets
            return
        chart = self.query_one(Chart)
        chart.titled = False  # the headline says it
        chart.show(zoom.chart, self._style, (zoom.first, zoom.last))
        stage = view.rail[view.shown] if view.shown is not None else None
        place = zoom.gauges.index(zoom.chart.key) + 1
        words = f"gauge {place} of {len(zoom.gauges)}, {self._style.words()}"
        self.query_one("#zoom-title", Static).update(
            Content.assemble(
                (f"{stage.index + 1} {stage.method} " if stage else "", "bold"), (zoom.chart.title, "bold $text-accent"),
                (f"  {words}", "dim"),
            )
        )  # fmt: skip
        follows = "" if self._look.end is not None else ", following" if view.status == "running" else ""
        steps = f"steps {zoom.first} to {zoom.last} of {zoom.newest}{follows}"
        target = f"target {zoom.chart.target}" if str(zoom.chart.target) else ""
        line = "   ".join(part for part in (steps, *zoom.words, target) if part)
        self.query_one("#zoom-figures", Static).update(
            Content(ascii_words(line) if self.app.ascii_only else line)  # type: ignore[attr-defined]
        )
        self.refresh_bindings()

    # ---- what can be done ----------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        zoom = self._zoom
        if zoom is None:
            return action in ("back",)
        oldest = zoom.first <= 1 or self._look.span is None
        able = {
            "narrow": zoom.last - zoom.first > NARROWEST,
            "widen": self._look.span is not None,
            "all": self._look.span is not None,
            "follow": self._look.end is not None,
            "gauge": len(zoom.gauges) > 1,
            "scroll": not oldest if parameters == (-1,) else self._look.end is not None,
        }.get(action, True)
        return bool(able)

    def _set(self, **changes: object) -> None:
        self._look = replace(self._look, **changes)  # type: ignore[arg-type]
        self._ask(self._look)

    def _shown(self) -> int:
        zoom = self._zoom
        return zoom.last - zoom.first + 1 if zoom else NARROWEST

    def action_gauge(self, by: int) -> None:
        if zoom := self._zoom:
            place = zoom.gauges.index(zoom.chart.key)
            self._set(gauge=zoom.gauges[(place + by) % len(zoom.gauges)])

    def action_narrow(self) -> None:
        self._set(span=max(NARROWEST, (self._look.span or self._shown()) // 2))

    def action_widen(self) -> None:
        wider = 2 * (self._look.span or self._shown())
        whole = self._zoom is not None and wider >= self._zoom.newest
        self._set(span=None, end=None) if whole else self._set(span=wider)

    def action_all(self) -> None:
        self._set(span=None, end=None)

    def action_scroll(self, by: int) -> None:
        if zoom := self._zoom:
            end = zoom.last + by * max(1, self._shown() // 4)
            self._set(end=None if end >= zoom.newest else max(self._shown(), end))

    def action_follow(self) -> None:
        self._set(end=None)

    def action_stage(self, by: int) -> None:
        last = len(self._view.rail) - 1
        now = self._view.shown if self._view.shown is not None else last
        self._set(stage=min(last, max(0, now + by)), span=None, end=None)

    def action_log_scale(self) -> None:
        self._style = replace(self._style, log=not self._style.log)
        self.show(self._view)

    def action_smooth(self) -> None:
        self._style = self._style.smoother()
        self.show(self._view)

    def action_back(self) -> None:
        self.dismiss(self._style)


class ZoomedPicture(Screen[None]):
    """The picture of a stage over the whole screen."""

    HELP = PICTURE_HELP
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,z", "back", "run")]

    def __init__(self, view: RunView) -> None:
        super().__init__()
        self._view = view

    def compose(self) -> ComposeResult:
        yield Static("", id="zoom-title", markup=False)
        yield StagePicture(self.app.ascii_only, id="zoomed")  # type: ignore[attr-defined]
        yield Footer()

    def on_mount(self) -> None:
        self.show(self._view)

    def show(self, view: RunView) -> None:
        self._view = view
        if self.query(StagePicture):
            self.query_one(StagePicture).show(view.pictures)
            stage = view.rail[view.shown] if view.shown is not None else None
            self.query_one("#zoom-title", Static).update(
                Content.assemble((f"{stage.index + 1} {stage.method}  " if stage else "", "bold"), view.headline)
            )

    def action_back(self) -> None:
        self.dismiss(None)
