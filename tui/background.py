"""Work beside the screen: in a thread that never keeps the app from ending, its result delivered to the screen."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from textual.screen import Screen

T = TypeVar("T")
BESIDE = "beside the screen"
"""The name of every thread whose end the screen waits for."""


def beside(
    screen: Screen[Any],
    work: Callable[[], T],
    then: Callable[[T], None],
    failed: Callable[[Exception], None] | None = None,
) -> None:
    """Run ``work`` in a thread and hand its result to ``then`` on the screen's own, unless the screen has gone.

    What goes wrong is shown as a notice, or given to ``failed``: it costs a result, never the app.
    """
    app = screen.app

    def deliver(call: Callable[[Any], None], value: Any) -> None:
        if screen.is_attached and screen.is_running:
            call(value)

    def complain(error: Exception) -> None:
        screen.notify(f"{type(error).__name__}: {error}", severity="error", timeout=15, markup=False)

    def run() -> None:
        call: Callable[[Any], None]
        try:
            call, value = then, work()
        except Exception as error:  # told to the user below
            call, value = failed or complain, error  # type: ignore[assignment]
        try:
            app.call_from_thread(deliver, call, value)
        except RuntimeError:
            pass  # the app has ended meanwhile

    threading.Thread(target=run, daemon=True, name=BESIDE).start()
