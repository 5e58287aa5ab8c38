"""One run, live: stages and phases, gauges against their targets, charts, gates, samples, alerts, log."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, RichLog, Static, TabbedContent, TabPane

from engine.report import clock, figure, limit_words
from engine.runs.directory import RunDirectory
from tui.follow import Follower, Update
from tui.view.event_words import sample_words
from tui.view.run_view import RunView, resumable
from tui.widgets.chart import Chart
from tui.widgets.gauge import Gauge
from tui.widgets.rail import Rail
from tui.words import ascii_words

STATUS_STYLES = {
    "running": "$primary", "done": "$success", "failed": "$error", "paused": "$warning", "stopped": "$warning",
    "interrupted": "$warning",
}  # fmt: skip
TABS = ("gates", "samples", "alerts", "log")


class Monitor(Screen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "runs"),
        Binding("p", "steer('pause')", "pause"),
        Binding("r", "steer('resume')", "resume"),
        Binding("s", "steer('stop')", "stop"),
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
        self._stage: int | None = None

    def compose(self) -> ComposeResult:
        plain = self.app.ascii_only  # type: ignore[attr-defined]
        yield Static(self._run_directory.id, id="headline", markup=False)
        yield Rail(plain, id="rail")
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
                    else:
                        with VerticalScroll():
                            yield Static("", id=f"{name}-text", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self._follower.start()

    def on_unmount(self) -> None:
        self._follower.stop()

    def on_resize(self) -> None:
        if self._view is not None:  # lines are cut to the width
            self._put("gates-text", self._gates(self._view))

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
        style = "$warning" if view.gate_failed else STATUS_STYLES.get(view.status, "")
        self._put(
            "headline",
            Content.assemble((self._run_directory.id, "bold"), "  ", (view.headline, f"bold {style}".strip())),
        )
        self.query_one(Rail).show(view)
        for gauge in view.gauges:
            self.query_one(f"#gauge-{gauge.key}", Gauge).show(gauge)
        for place, chart in enumerate(view.charts):
            self.query_one(f"#chart-{place}", Chart).show(chart)
        self._put("facts", Content("  ".join(view.facts)))
        if before is None or (before.gates, before.waiting_gates) != (view.gates, view.waiting_gates):
            self._put("gates-text", self._gates(view))
        if before is None or before.samples != view.samples:
            self._put("samples-text", self._samples(view))
        if before is None or before.alerts != view.alerts:
            self._put("alerts-text", self._alerts(view))
            serious = sum(alert.level != "info" for alert in view.alerts)
            self.query_one(TabbedContent).get_tab("alerts").label = Content(
                f"Alerts ({serious})" if serious else "Alerts"
            )
        if update.lines:
            log = self.query_one("#log-lines", RichLog)
            for line in update.lines:
                log.write(line)
        if before is None or before.status != view.status:
            self.refresh_bindings()

    def _put(self, name: str, content: Content) -> None:
        static = self.query_one(f"#{name}", Static)
        if not isinstance(static.content, Content) or not static.content.is_same(content):
            static.update(content)

    def _plain(self, text: str) -> str:
        return ascii_words(text) if self.app.ascii_only else text  # type: ignore[attr-defined]

    def _gates(self, view: RunView) -> Content:
        good, bad, wait = ("+", "!", ".") if self.app.ascii_only else ("✓", "✗", "·")  # type: ignore[attr-defined]
        methods = max(len(stage.method) for stage in view.rail)
        lines = []
        for index, gate in reversed(view.gates):
            style = "$success" if gate.passed else "$error"
            limit = self._plain(limit_words(gate))
            lines.append(
                Content.assemble(
                    (f"{good if gate.passed else bad} ", f"bold {style}"),
                    (f"{view.rail[index].method:<{methods}} ", "dim"),
                    f"{gate.name:<20} ",
                    (f"{figure(float(gate.value)):>9} ", f"bold {style}"),
                    f"{limit:<18} ",
                    (f"n {gate.n:<6} {self._plain(gate.detail)}", "dim"),
                )
            )
        undecided = [
            f"{name:<20} {'':>9} {self._plain(limit):<18} not decided yet" for name, limit in view.waiting_gates
        ]
        waiting = [Content.styled(f"{wait} {' ' * methods} {words}", "dim") for words in undecided]
        lines = [line.truncate(self.size.width - 4, ellipsis=True) for line in [*waiting, *lines]]
        return Content("\n").join(lines) if lines else Content.styled("no gates", "dim")

    def _samples(self, view: RunView) -> Content:
        parts = []
        for sample in reversed(view.samples):
            given = sample_words(sample)
            parts.append(
                Content.assemble(
                    (f"step {sample.step}  ", "dim"), (sample.prompt, "bold"), (f"  {given}" if given else "", "$accent"),
                    f"\n  {sample.completion}",
                )
            )  # fmt: skip
        return Content("\n").join(parts) if parts else Content.styled("no samples yet", "dim")

    def _alerts(self, view: RunView) -> Content:
        styles = {"warning": "$warning", "error": "$error"}
        lines = [
            Content.assemble((f"{clock(alert.time)[11:]} {alert.level} ", styles.get(alert.level, "dim")), alert.text)
            for alert in reversed(view.alerts)
        ]
        return Content("\n").join(lines) if lines else Content.styled("no alerts", "dim")

    # ---- what can be done ----------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action != "steer" or self._view is None:
            return True if action != "steer" else None
        status = self._view.status
        works = status in ("running", "queued")
        can_resume, _ = resumable(self._follower.state, status)
        allowed = {"resume": can_resume, "pause": works, "stop": works}
        return True if allowed[str(parameters[0])] else None

    def action_steer(self, word: str) -> None:
        from tui.screens.asking import ask_and_do

        ask_and_do(self, word, self._run_directory)

    def action_tab(self, name: str) -> None:
        self.query_one("#tabs", TabbedContent).active = name

    def action_stage(self, by: int) -> None:
        """Look at another stage; past the last one: whichever runs."""
        if self._view is None:
            return
        last = len(self._view.rail) - 1
        now = self._stage if self._stage is not None else last
        self._stage = min(last, max(0, now + by))
        self._follower.look_at(self._stage)

    def chosen_run(self) -> RunDirectory:
        return self._run_directory

    def action_back(self) -> None:
        self.app.pop_screen()
