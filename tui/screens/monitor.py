"""One run, live: stages and phases, gauges against their targets, charts, gates, samples, alerts, log."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import RichLog, Static, TabbedContent, TabPane

from engine.runs.directory import RunDirectory
from tui.follow import Follower, Update
from tui.screens.zoom import Zoomed, ZoomedPicture
from tui.view.answers import earlier_choices
from tui.view.gauges import Look
from tui.view.run_view import RunView, resumable
from tui.widgets.chart import Chart, ChartStyle
from tui.widgets.footer import Footer
from tui.widgets.gauge import Gauge
from tui.widgets.panes import alerts_pane, attention, forecast_pane, gates_pane, samples_pane, serious
from tui.widgets.rail import Rail
from tui.widgets.stage_picture import StagePicture

STATUS_STYLES = {
    "running": "$text-primary", "done": "$text-success", "failed": "$text-error", "paused": "$text-warning",
    "stopped": "$text-warning", "interrupted": "$text-warning",
}  # fmt: skip
TABS = ("gates", "samples", "alerts", "log", "forecast", "picture")
HELP = """\
KEYS
  p  r  s      pause, resume, stop (asks)
  z            one chart over the whole screen: every gauge, zoom, scroll, follow
               (on the picture's tab: the picture)
  l            logarithmic scale       m   how much the charts are smoothed
  1 2 3 4 5 6  gates, samples, alerts, log, forecast, picture
  a            beside the newest samples, another earlier answer
  [ ]          the stage before, the stage after
  y            copy: the run's path, a command, the newest sample, the alerts
  c            chat with the run           e   export: take it home
  v            compare with other runs
  Esc          back to the runs        Ctrl+P  every command by name
  Ctrl+Q       leave; the run goes on in the background

WORDS
  loss       of the training batch, per token; its target is to fall
  KL est     how far the model has moved from where the stage began, in nats per
             token, exact, at the positions of the training batch (an estimate of
             what the gate measures on the model's own completions)
  KL, gap    of a stage that is over: what its gates measured, in place of the
             estimates; the charts keep what was seen while it trained
  margin     how much more a preference stage's policy prefers the chosen
             completion than its reference does, times beta (the reward of DPO)
  ┃ or |     in a gauge: the target, from the method's card or the recipe
  dots, line in a chart: the raw values, and their moving average (debiased);
             a gap with ! above is a value that was not a number
  gate       a figure measured on held-out data against its limit; n is how many
             cases are behind it
  alerts     first what holds now, with what to do; then what was told, newest first
  forecast   what each stage was said to need when it began, and what it took
  picture    calibration: accuracy over confidence, good is on the diagonal;
             abliteration: refusals over KL of every trial, and the one picked
  paused     at a checkpoint; resume goes on with the very next step
  interrupted  nobody works on it: it was killed, or the machine went down;
             resume carries on, to the bit
"""


ONE_LINE = ("headline", "facts")
"""Of one line whatever they say: what changes with every view moves nothing else."""
CHARTS_EVERY = 1.0
"""Seconds between two drawings of the charts while steps come in: a few more of them move hardly a dot."""


class Monitor(Screen[None]):
    HELP = HELP
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "runs"),
        Binding("p", "steer('pause')", "pause"),
        Binding("r", "steer('resume')", "resume"),
        Binding("s", "steer('stop')", "stop"),
        Binding("z", "zoom", "zoom", tooltip="One chart over the whole screen"),
        Binding("l", "log_scale", "log scale", show=False),
        Binding("m", "smooth", "smoothing", show=False),
        Binding("a", "earlier", "earlier answer", show=False),
        Binding("y", "copy", "copy", show=False),
        Binding("v", "compare", "compare", show=False),
        Binding("e", "export", "export", show=False),
        Binding("c", "app.chat", "chat"),
        *(Binding(str(number + 1), f"tab('{name}')", name, show=False) for number, name in enumerate(TABS)),
        Binding("left_square_bracket", "stage(-1)", "stage before", show=False),
        Binding("right_square_bracket", "stage(1)", "stage after", show=False),
    ]

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self._run_directory = run
        self._follower = Follower(run, self._deliver)
        self._view: RunView | None = None
        self._look = Look()
        self._style = ChartStyle()
        self._said_style = False
        self._back = 0
        """Which of the earlier answers stands beside the newest."""
        self._charts: list[Chart] = []
        self._charts_drawn = float("-inf")

    def compose(self) -> ComposeResult:
        plain = self.app.ascii_only  # type: ignore[attr-defined]
        yield Static(self._run_directory.id, id="headline", markup=False)
        yield Rail(plain, id="rail")
        yield Static("", id="attention", markup=False)
        with Vertical(id="gauges"):
            for key in ("loss", "kl", "reward"):
                yield Gauge(plain, id=f"gauge-{key}")
        with Horizontal(id="charts"):
            for place in range(4):
                yield Chart(plain, id=f"chart-{place}", classes="chart")
        yield Static("", id="facts", markup=False)
        with TabbedContent(id="tabs", initial="gates"):
            for name in TABS:
                with TabPane(name.capitalize(), id=name):
                    if name == "log":
                        yield RichLog(id="log-lines", max_lines=1000, wrap=True, markup=False, min_width=20)
                    elif name == "picture":
                        yield StagePicture(plain, id="stage-picture")
                    else:
                        with VerticalScroll():
                            yield Static("", id=f"{name}-text", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#attention").display = False
        self.query_one(TabbedContent).hide_tab("picture")
        self._charts = list(self.query(Chart))
        self.call_after_refresh(self._follower.start)  # a long log is read once the screen stands

    def on_unmount(self) -> None:
        self._follower.stop()

    def on_resize(self) -> None:
        if self._view is not None:  # lines are cut to the width
            self._fill(self._view, None)

    # ---- what comes in -------------------------------------------------------------------------------------------

    def _deliver(self, update: Update) -> None:
        """In the follower's thread; the app may just be going."""
        if self.is_running and self.app.is_running:
            try:
                self.app.call_from_thread(self._show, update)
            except RuntimeError:
                self._follower.stop()

    def _show(self, update: Update) -> None:
        if not self.is_mounted:
            return
        before, view = self._view, update.view
        self._view = view
        zoomed = self.app.screen
        if isinstance(zoomed, Zoomed | ZoomedPicture):
            zoomed.show(view)
        style = "$text-warning" if view.gate_failed else STATUS_STYLES.get(view.status, "")
        self._put(
            "headline",
            Content.assemble((self._run_directory.id, "bold"), "  ", (view.headline, f"bold {style}".strip())),
        )
        self.query_one(Rail).show(view)
        for gauge in view.gauges:
            self.query_one(f"#gauge-{gauge.key}", Gauge).show(gauge)
        if self._charts_due(view, before):
            self._show_charts(view)
        self._put_facts(view)
        self._fill(view, before)
        if update.lines:
            log = self.query_one("#log-lines", RichLog)
            follow = log.is_vertical_scroll_end  # who has scrolled back is left there
            for line in update.lines:
                log.write(line, scroll_end=follow)
        if before is None or before.status != view.status:
            self.refresh_bindings()
            self.app.run_changed(self._run_directory, view, before)  # type: ignore[attr-defined]

    def _put_facts(self, view: RunView) -> None:
        """The last step's figures; before them, once it was changed, how the charts are drawn."""
        style = [f"charts: {self._style.words()} "] if self._said_style else []
        self._put("facts", Content("  ".join([*style, *view.facts])))

    def _charts_due(self, view: RunView, before: RunView | None) -> bool:
        """Not with every view while the run works: its clock brings another within a second."""
        if before is None or (view.status, view.shown, len(view.charts)) != (
            before.status, before.shown, len(before.charts),
        ):  # fmt: skip
            return True
        return view.status != "running" or time.monotonic() - self._charts_drawn >= CHARTS_EVERY

    def _show_charts(self, view: RunView) -> None:
        self._charts_drawn = time.monotonic()
        for place, chart in enumerate(self._charts):
            chart.set_class(place >= len(view.charts), "-unused")
            if place < len(view.charts):
                chart.show(view.charts[place], self._style)

    def _fill(self, view: RunView, before: RunView | None) -> None:
        """The tabs, where something has changed. ``before`` None: all of them."""
        plain = self.app.ascii_only  # type: ignore[attr-defined]
        width = self.size.width - 4
        if before is None or (before.gates, before.waiting_gates) != (view.gates, view.waiting_gates):
            self._put("gates-text", gates_pane(view, width, plain))
        if before is None or before.samples != view.samples:
            self._put("samples-text", samples_pane(view.samples, width, self._back))
            self.refresh_bindings()
        if before is None or (before.alerts, before.conditions) != (view.alerts, view.conditions):
            self._put("alerts-text", alerts_pane(view.conditions, view.alerts, width, plain))
            count = serious(view.conditions, view.alerts)
            self.query_one(TabbedContent).get_tab("alerts").label = Content(f"Alerts ({count})" if count else "Alerts")
            self._put("attention", attention(view.conditions, plain))
            self.query_one("#attention").display = bool(view.conditions)
        # Its clock runs: only where somebody looks.
        tabs = self.query_one("#tabs", TabbedContent)
        if before is None or tabs.active == "forecast" and before.planned != view.planned:
            self._put("forecast-text", forecast_pane(view.planned, width, plain))
        if before is None or before.pictures != view.pictures:
            self._show_picture(view)

    def _show_picture(self, view: RunView) -> None:
        tabs = self.query_one(TabbedContent)
        name = "Reliability" if view.pictures.reliability else "Front" if view.pictures.front else ""
        if name:
            tabs.get_tab("picture").label = Content(name)
            tabs.show_tab("picture")
        else:
            tabs.hide_tab("picture")
        self.query_one(StagePicture).show(view.pictures)

    def _put(self, name: str, content: Content) -> None:
        static = self.query_one(f"#{name}", Static)
        before = static.content
        if not isinstance(before, Content) or not before.is_same(content):
            # Lines of the forecast are cut to the width.
            as_high = name == "forecast-text" and str(before).count("\n") == content.plain.count("\n")
            static.update(content, layout=name not in ONE_LINE and not (as_high and before))

    # ---- what can be done ----------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        view = self._view
        if action == "steer":
            if view is None:
                return False
            works = view.status in ("running", "queued")
            can_resume, _ = resumable(self._follower.shown, view.status)
            allowed = {"resume": can_resume, "pause": works, "stop": works}
            return allowed[str(parameters[0])]
        if action == "earlier":
            shown = self.is_mounted and self.query_one("#tabs", TabbedContent).active == "samples"
            return view is not None and shown and earlier_choices(view.samples) > 1
        if action == "tab" and parameters == ("picture",):
            return view is not None and (view.pictures.front or view.pictures.reliability) is not None
        if action == "zoom":
            return view is not None and bool(view.charts)
        return True

    def action_steer(self, word: str) -> None:
        from tui.screens.asking import ask_and_do

        ask_and_do(self, word, self._run_directory)

    def action_tab(self, name: str) -> None:
        self.query_one("#tabs", TabbedContent).active = name

    def on_tabbed_content_tab_activated(self) -> None:
        self.refresh_bindings()
        if self._view is not None and self.query_one("#tabs", TabbedContent).active == "forecast":
            self._put(
                "forecast-text",
                forecast_pane(self._view.planned, self.size.width - 4, self.app.ascii_only),  # type: ignore[attr-defined]
            )

    def action_stage(self, by: int) -> None:
        """Look at another stage; past the last one: whichever runs."""
        if self._view is None:
            return
        last = len(self._view.rail) - 1
        now = self._look.stage if self._look.stage is not None else last
        self._set_look(replace(self._look, stage=min(last, max(0, now + by))))

    def action_zoom(self) -> None:
        if self._view is not None and self.query_one("#tabs", TabbedContent).active == "picture":
            self.app.push_screen(ZoomedPicture(self._view))
        elif self._view is not None and self._view.charts:
            self._set_look(Look(self._look.stage, self._view.charts[0].key))
            self.app.push_screen(Zoomed(self._run_directory, self._view, self._set_look, self._style), self._unzoomed)

    def _set_look(self, look: Look) -> None:
        self._look = look
        self._follower.look(look)

    def _unzoomed(self, style: ChartStyle | None) -> None:
        self._set_look(Look(self._look.stage))
        if style is not None and style != self._style:
            self._restyle(style)

    def action_log_scale(self) -> None:
        self._restyle(replace(self._style, log=not self._style.log))

    def action_smooth(self) -> None:
        self._restyle(self._style.smoother())

    def _restyle(self, style: ChartStyle) -> None:
        self._style, self._said_style = style, True
        if self._view is not None:
            self._show_charts(self._view)
            self._put_facts(self._view)

    def action_earlier(self) -> None:
        self._back += 1
        if self._view is not None:
            width = self.size.width - 4
            self._put("samples-text", samples_pane(self._view.samples, width, self._back))

    def action_copy(self) -> None:
        from tui.screens.copying import CopyFrom, offered

        self.app.push_screen(CopyFrom(offered(self._run_directory, self._view)))

    def action_compare(self) -> None:
        self.app.compare([self._run_directory.id])  # type: ignore[attr-defined]

    def action_export(self) -> None:
        from tui.screens.export import Export

        self.app.push_screen(Export(self._run_directory))

    def chosen_run(self) -> RunDirectory:
        return self._run_directory

    def action_back(self) -> None:
        self.app.pop_screen()
