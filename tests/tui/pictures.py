"""The README's pictures of the app, as its screens look now: ``python -m tests.tui.pictures [FOLDER]``.

The monitor is a real demo run's (tests/tui/recorded), the guided way is walked on a machine with an RTX 3090.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

WIDE = {"monitor": (110, 34), "wizard": (100, 30)}


def main(folder: Path) -> None:
    os.environ |= {"FINETUNE_TUI_HOME": tempfile.mkdtemp(), "TEXTUAL_ANIMATIONS": "none", "TZ": "UTC"}
    os.environ.pop("NO_COLOR", None)
    time.tzset()
    from engine.forecast.hardware import find_hardware
    from tests.tui.wizard_driving import MACHINE

    hardware = find_hardware("rtx-3090")
    with (
        patch("tui.machine_book.hardware", lambda: hardware),
        patch("tui.machine_book.machine", lambda: MACHINE),
        patch("tui.app.unicode_terminal", lambda: True),
        patch("tui.words.unicode_terminal", lambda: True),
    ):
        asyncio.run(wizard(folder))
        asyncio.run(monitor(folder))


def picture(app) -> str:
    """Spaces are kept by every viewer."""
    return re.sub(
        r"(<text [^>]*>)([^<]*)",
        lambda m: m[1].replace("<text ", '<text xml:space="preserve" ') + m[2].replace(" ", "&#160;"),
        app.export_screenshot(title="finetune-tui"),
    )


async def wizard(folder: Path) -> None:
    from tests.tui.driving import at_rest, settled
    from tests.tui.wizard_driving import TO_DATA, TO_FIT, TO_MODEL, TO_RECIPE, walk
    from tui.app import FinetuneApp

    app = FinetuneApp()
    async with app.run_test(size=WIDE["wizard"]) as pilot:
        await settled(pilot, "No runs yet")
        done = 0
        for name, steps in (
            ("goal", (*TO_MODEL[:1], "down")),
            ("data", TO_DATA),
            ("fit", TO_FIT),
            ("recipe", TO_RECIPE),
        ):
            await walk(pilot, *(steps if name == "goal" else steps[done:]))
            done = max(1, done) if name == "goal" else len(steps)
            await at_rest(pilot)
            (folder / f"wizard-{name}.svg").write_text(picture(app))


async def monitor(folder: Path) -> None:
    from engine.runs.events import decode
    from engine.runs.lock import Lock
    from tests.tui.driving import at_rest, settled
    from tests.tui.recording import RUN_ID, in_the_middle, recorded_run
    from tui.app import FinetuneApp
    from tui.view.conditions import Surroundings

    run = recorded_run(until=in_the_middle)
    last = decode(run.events.read_bytes().splitlines()[-1]).time
    lock = Lock(run.lock)
    lock.acquire()
    try:
        with patch("tui.follow.time.time", lambda: last + 1.0), patch("tui.follow.look_around", Surroundings):
            app = FinetuneApp(RUN_ID)
            async with app.run_test(size=WIDE["monitor"]) as pilot:
                await settled(pilot, "lr ")
                await at_rest(pilot)
                (folder / "monitor.svg").write_text(picture(app))
    finally:
        lock.release()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "assets" / "pictures")
