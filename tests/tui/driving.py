"""Driving the app by keys without a terminal, and its screens as text."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from pathlib import Path

from textual.events import Key
from textual.keys import _character_to_key

from engine.runs.events import decode
from tui.app import FinetuneApp
from tui.background import BESIDE

SNAPSHOTS = Path(__file__).with_name("snapshots")
SIZES = {"80x24": (80, 24), "60x20": (60, 20), "160x48": (160, 48), "200x60": (200, 60)}


def clock_at(monkeypatch, run):
    """The follower's clock stands a second after the run's last event."""
    last = decode(run.events.read_bytes().splitlines()[-1]).time
    monkeypatch.setattr("tui.follow.time.time", lambda: last + 1.0)


def text_of(app):
    return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips()) + "\n"


async def settled(pilot, shows, seconds=120.0):
    """Wait until the screen shows a text."""
    began = time.monotonic()
    await pilot.pause(0)
    while (waited := time.monotonic() - began) < seconds:
        if shows in text_of(pilot.app):
            return
        await pilot.pause(0.05 if waited < 2 else 0.2)  # looking is work too, and takes it from what is waited for
    raise AssertionError(f"never showed {shows!r}:\n{text_of(pilot.app)}")


async def typed(pilot, text):
    """Type a text as fast as a paste: no key waits for what the one before it has led to."""
    for sign in text:
        key = Key(sign if sign.isalnum() else _character_to_key(sign), sign)
        key.set_sender(pilot.app)
        pilot.app._driver.send_message(key)
    await pilot.pause()


def busy(app):
    """Whether anything that the screen waits for is under way: work beside it, a message, a layout, a repaint."""
    screen = app.screen
    nodes = [app, *screen.walk_children(with_self=True)]
    return (
        any(thread.name == BESIDE and thread.is_alive() for thread in threading.enumerate())
        or any(not worker.is_finished and worker.group != "book" for worker in app.workers)  # those never end
        or any(node.message_queue_size or node._next_callbacks for node in nodes)
        or any(node._layout_required or node._repaint_required for node in nodes[1:])
        or bool(screen._dirty_widgets or screen._callbacks)
    )


async def at_rest(pilot, seconds=180.0):
    """The screen's text once nothing is under way any more: a slow machine lays out in several strokes. Of a run that is
    being watched live, whose figures never rest, what it shows when nothing else was under way for a second."""
    before, quiet_since, end = None, None, time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        await pilot.pause()
        text = text_of(pilot.app)
        if busy(pilot.app):
            quiet_since = None
        else:
            quiet_since = quiet_since or now
            if text == before or now - quiet_since > 1.0:
                return text
        before = text
        await asyncio.sleep(0.02 if now + seconds - end < 2 else 0.2)
    raise AssertionError(f"never at rest:\n{before}")


async def walk(pilot, *steps):
    """A step is a key, a text to type (``type …``), a size ``(columns, lines)`` to give the terminal, a function to call, or
    (key or text, a text that then shows or a function of what shows once all is at rest)."""
    for step in steps:
        if callable(step):
            step()
            continue
        what, then = step if isinstance(step, tuple) and not isinstance(step[1], int) else (step, None)
        if isinstance(what, tuple):
            await pilot.resize_terminal(*what)
        elif what.startswith("type "):
            await typed(pilot, what.removeprefix("type "))
        elif what:
            await pilot.press(what)
        if callable(then):
            then(await at_rest(pilot))
        elif then:
            await settled(pilot, then)


def drive(run_id, size, *steps, shows="lr ", then=None):
    """Open the app, press keys; a step is a key, or a (key, text that then shows, or a function of what shows); a key
    ``type …`` types a text. Returns the screen's text and SVG, or what ``then(app)`` gives."""

    async def session():
        app = FinetuneApp(run_id)
        async with app.run_test(size=size, notifications=True) as pilot:
            await settled(pilot, shows)
            if app.settings.keys == "shown":
                await settled(pilot, "^")  # the footer
            await walk(pilot, *steps)
            await at_rest(pilot)
            return then(app) if then else (text_of(app), app.export_screenshot())

    return asyncio.run(session())


def approved(name, text):
    """Compare with the approved screen; with FINETUNE_TUI_APPROVE set, approve this one."""
    path = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("FINETUNE_TUI_APPROVE"):
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs; look at it, then approve with FINETUNE_TUI_APPROVE=1"
