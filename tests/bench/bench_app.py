"""The app: first paint, a log of a million events, redrawing charts, and what it costs to watch and to wait."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

from engine.runs.directory import RunDirectory
from engine.runs.events import RunEvent, StageEvent, StepEvent, encode
from engine.runs.lock import Lock

ROUNDS = 15
BARE = """
from textual.app import App
from textual.widgets import Static
class Bare(App):
    def compose(self):
        yield Static("finetune-tui")
Bare().run()
"""


def rows() -> list[str]:
    drawn = redraw()  # first: what the others leave in this process is none of its cost
    with tempfile.TemporaryDirectory() as folder:
        homes = [Path(folder, name) for name in ("paint", "long", "watch")]
        found = []
        for home, measure in zip(homes, (first_paint, million_events, watching), strict=True):
            home.mkdir()
            os.environ["FINETUNE_TUI_HOME"] = str(home)
            found += measure(home)
        return [*found, drawn]


# ---- a key while events come in ------------------------------------------------------------------------------------------


def key_to_repaint(run: RunDirectory, presses: int = 60) -> str:
    """From the byte of a key in the terminal to the first byte of the screen that it changes, 100 events a second
    coming in. ``l`` turns the charts' scale: all of them are drawn anew; what comes without a key is read away first."""
    command = [str(Path(sys.executable).with_name("finetune-tui")), "attach", run.id]
    process, main = in_terminal(command)
    waits = []
    try:
        deadline = time.perf_counter() + 6.0
        while time.perf_counter() < deadline:
            read(main, 0.05)
        for _ in range(presses):
            deadline = time.perf_counter() + 0.12
            while time.perf_counter() < deadline:
                read(main, 0.01)
            while read(main, 0.03):  # a redraw that was under way
                pass
            began = time.perf_counter()
            os.write(main, b"l")
            seen = b""
            while b"scale" not in seen and time.perf_counter() - began < 2.0:  # its message names the scale
                seen += read(main, 0.5)
            waits.append(time.perf_counter() - began)
    finally:
        process.terminate()
        process.wait(10)
        os.close(main)
    ordered = sorted(waits)
    found = f"{1000 * statistics.median(waits):.0f} ms (90 % within {1000 * ordered[int(0.9 * len(ordered))]:.0f} ms, n {presses})"
    return f"| key to repaint while 100 events a second arrive | {found} | < 50 ms |"


# ---- first paint -------------------------------------------------------------------------------------------------------


def in_terminal(command: list[str]) -> tuple[subprocess.Popen[bytes], int]:
    """A command in a terminal of 80×24 of its own, and what its screen is read from."""
    main, end = pty.openpty()
    os.set_blocking(main, False)
    environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(command, stdin=end, stdout=end, stderr=end, env=environment, start_new_session=True)
    os.close(end)
    return process, main


def read(main: int, seconds: float) -> bytes:
    """What comes within that time; empty when nothing does."""
    if select.select([main], [], [], seconds)[0]:
        try:
            return os.read(main, 1 << 16)
        except OSError:
            pass
    return b""


def seconds_to_paint(command: list[str]) -> float:
    """From the start of the process to the bytes of its first text on the terminal."""
    began = time.perf_counter()
    process, main = in_terminal(command)
    seen = b""
    try:
        while b"finetune-tui" not in seen:
            seen += read(main, 1.0)
            if process.poll() is not None:
                raise RuntimeError(f"{command} ended with {process.returncode}: {seen[-2000:]!r}")
        return time.perf_counter() - began
    finally:
        process.kill()
        process.wait()
        os.close(main)


def cpu_share(command: list[str], settle: float = 4.0, seconds: float = 20.0) -> float:
    """CPU seconds a second that a command in a terminal uses once its start is over."""
    process, main = in_terminal(command)
    before = since = None
    seen = b""
    try:
        while b"palette" not in seen:  # the footer: it stands, however slow the machine
            seen += read(main, 1.0)
        began = time.perf_counter()
        while (now := time.perf_counter()) - began < settle + seconds:
            read(main, 0.05)
            if before is None and now - began > settle:
                before, since = sum(psutil.Process(process.pid).cpu_times()[:2]), now
        assert before is not None and since is not None
        return (sum(psutil.Process(process.pid).cpu_times()[:2]) - before) / (time.perf_counter() - since)
    finally:
        process.terminate()
        process.wait(10)
        os.close(main)


def first_paint(folder: Path) -> list[str]:
    script = folder / "bare.py"
    script.write_text(BARE)
    bare, ours = [sys.executable, str(script)], [str(Path(sys.executable).with_name("finetune-tui"))]
    seconds_to_paint(bare), seconds_to_paint(ours)
    pairs = [(seconds_to_paint(ours), seconds_to_paint(bare)) for _ in range(ROUNDS)]
    ratios = [mine / theirs for mine, theirs in pairs]
    found = (
        f"{statistics.median(ratios):.2f} (min {min(ratios):.2f}, max {max(ratios):.2f}, n {ROUNDS}; "
        f"{statistics.median(mine for mine, _ in pairs):.2f} s)"
    )
    return [f"| first paint against a bare app with one Static | {found} | ≤ 1.3 |"]


# ---- a long log --------------------------------------------------------------------------------------------------------


def long_run(folder: Path, events: int) -> RunDirectory:
    from tests.bench.bench_event_log import write

    run = RunDirectory(folder / "runs" / "long-run")
    run.path.mkdir(parents=True, exist_ok=True)
    write(run.events)
    return run


def million_events(folder: Path) -> list[str]:
    run = long_run(folder, 1_000_000)
    from tui.app import FinetuneApp

    async def session() -> tuple[float, float, float]:
        app = FinetuneApp()
        async with app.run_test(size=(80, 24)) as pilot:
            await pilot.pause(3.0)  # the list has read it too
            began = time.perf_counter()
            app.watch_run(run.id)
            worst = first = 0.0
            while True:
                tick = time.perf_counter()
                await asyncio.sleep(0.005)
                worst = max(worst, time.perf_counter() - tick - 0.005)
                screen = app.screen
                follower = getattr(screen, "_follower", None)
                if not follower or not getattr(screen, "_view", None):
                    continue
                first = first or time.perf_counter() - began  # state, gauges, gates and alerts stand
                if follower.state.last_seq == 1_000_000:
                    return first, time.perf_counter() - began, worst

    results = [asyncio.run(session()) for _ in range(3)]
    firsts, times, waits = zip(*results, strict=True)
    found = (
        f"{statistics.median(firsts):.2f} s (max {max(firsts):.2f}, n 3), with each step's values in the charts "
        f"{statistics.median(times):.2f} s (max {max(times):.2f}); input waits at most {1000 * max(waits):.0f} ms"
    )
    return [f"| opening a log of a million events | {found} | < 3 s, never blocked |"]


# ---- charts ------------------------------------------------------------------------------------------------------------


def redraw() -> str:
    from textual.app import App, ComposeResult
    from textual.drivers.headless_driver import HeadlessDriver

    from tui.themes import chart_variables
    from tui.view.gauges import Chart as ChartData
    from tui.view.gauges import Limits
    from tui.widgets.chart import Chart

    written = [0]

    class Counting(HeadlessDriver):
        @property
        def is_headless(self) -> bool:
            return False

        def write(self, data: str) -> None:
            written[0] += len(data.encode())

    class Four(App[None]):
        CSS = "Screen { layout: grid; grid-size: 2 2; }"

        def get_theme_variable_defaults(self) -> dict[str, str]:
            return chart_variables(self.current_theme)

        def compose(self) -> ComposeResult:
            for place in range(4):
                yield Chart(id=f"c{place}")

    import math
    import random

    draw = random.Random(0)

    def data(place: int) -> ChartData:
        values = [math.exp(-i / 300) + 0.1 * draw.random() for i in range(1000)]
        return ChartData("loss", "loss", list(range(1000)), values, Limits(maximum=0.1))

    async def session() -> tuple[list[float], list[int]]:
        app = Four(driver_class=Counting)
        app._size = None  # type: ignore[attr-defined]
        times, sizes = [], []
        async with app.run_test(size=(80, 24), headless=True) as pilot:
            app._driver.__class__ = Counting  # type: ignore[union-attr]
            await pilot.pause(0.5)
            for _ in range(40):
                fresh = [data(place) for place in range(4)]
                written[0] = 0
                began = time.process_time()
                for place, chart in enumerate(fresh):
                    app.query_one(f"#c{place}", Chart).show(chart)
                await pilot.pause()
                await asyncio.sleep(0.05)
                times.append(time.process_time() - began)
                sizes.append(written[0])
            idle = []
            for _ in range(40):
                began = time.process_time()
                await pilot.pause()
                await asyncio.sleep(0.05)
                idle.append(time.process_time() - began)
        quiet = statistics.median(idle)
        return [value - quiet for value in times], sizes

    times, sizes = asyncio.run(session())
    found = f"{1000 * statistics.median(times):.1f} ms of CPU, {statistics.median(sizes) / 1000:.1f} kB (n 40)"
    return f"| redrawing four charts of 1000 points at 80×24 | {found} | ≤ 10 ms, ≤ 10 kB |"


# ---- watching ----------------------------------------------------------------------------------------------------------


def watching(folder: Path) -> list[str]:
    """CPU share of the app on a run that tells 100 events a second, and on one that tells nothing."""
    shares = []
    for per_second in (100, 0):
        run = RunDirectory(folder / "runs" / f"run-{per_second}")
        run.path.mkdir(parents=True)
        run.recipe.write_text("name: x\n")
        stages = [{"method": "dpo", "steps": 100_000, "gates": {"kl": [None, 0.1], "preference_gap": [0.15, None]}}]
        head = [
            RunEvent(state="created", seq=1, time=time.time(), detail={"name": "x", "stages": stages}),
            RunEvent(state="running", seq=2, time=time.time()),
            StageEvent(state="started", method="dpo", steps_total=100_000, seq=3, time=time.time(), stage=0),
        ]
        run.events.write_bytes(b"".join(map(encode, head)))
        lock = Lock(run.lock)
        lock.acquire()
        ended = threading.Event()
        teller = threading.Thread(target=_tell, args=(run.events, per_second, ended))
        teller.start()
        command = [str(Path(sys.executable).with_name("finetune-tui")), "attach", run.id]
        shares.append(cpu_share(command))
        if per_second:
            keyed = key_to_repaint(run)
        ended.set()
        teller.join()
        lock.release()
    return [
        f"| watching 100 events a second | {shares[0]:.1%} of a core over 20 s | < 5 % |",
        f"| watching a run that says nothing | {shares[1]:.1%} of a core over 20 s | < 1 % |",
        keyed,
    ]


def _tell(path: Path, per_second: int, ended: threading.Event) -> None:
    step = 0
    with open(path, "ab", buffering=0) as file:
        while per_second and not ended.wait(1 / per_second):
            step += 1
            values = {"loss": 1 / step, "kl": 0.01, "reward": 0.1 * step, "grad_norm": 0.5, "learning_rate": 1e-4}
            event = StepEvent(seq=3 + step, time=time.time(), stage=0, step=step, total=100_000, values=values)
            file.write(encode(event))
