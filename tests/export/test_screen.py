"""The export screen, driven by keys on a real run."""

from __future__ import annotations

import asyncio

import pytest

from tui.app import FinetuneApp


def text_of(app):
    return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips())


async def shows(pilot, words, seconds=60.0):
    for _ in range(int(seconds / 0.05)):
        await pilot.pause(0.05)
        if words in text_of(pilot.app):
            return text_of(pilot.app)
    raise AssertionError(f"never showed {words!r}:\n{text_of(pilot.app)}")


@pytest.mark.parametrize("size", [(80, 24), (120, 36)])
def test_an_export_from_the_runs_to_the_next_command(size, run, in_process):
    async def session():
        async with FinetuneApp().run_test(size=size) as pilot:
            await shows(pilot, run.id)
            await pilot.press("e")
            text = await shows(pilot, "after stage 3 of 3 (steering)")
            assert "adapter" in text and "memory" in text and "free" in text
            await pilot.press("left_square_bracket")
            await shows(pilot, "after stage 2 of 3 (abliteration)")
            await pilot.press("end", "up", "up")
            assert "projections" in await shows(pilot, "Not now")
            await pilot.press("enter")  # nothing happens: it cannot be made
            await pilot.press("right_square_bracket")
            await shows(pilot, "after stage 3 of 3 (steering)")
            await pilot.press("home", "down", "down", "t", "t")
            await shows(pilot, "gguf q8_0")
            await pilot.press("enter")
            await shows(pilot, "gguf: done")
            assert "next:" in await shows(pilot, "Done:")
            await pilot.press("escape")
            await shows(pilot, "small-")

    asyncio.run(session())
    assert (run.exports / "gguf-q8_0" / "model.gguf").is_file()


def test_ending_an_export_asks_and_keeps_nothing(run, monkeypatch):
    """The real thing, in processes: Escape, y, and no draft is left."""

    async def session():
        async with FinetuneApp().run_test(size=(80, 24)) as pilot:
            await shows(pilot, run.id)
            await pilot.press("e")
            await shows(pilot, "after stage 3 of 3")
            await pilot.press("down", "enter")
            await shows(pilot, "merged: 2/4")
            await pilot.press("escape")
            await shows(pilot, "Nothing of it is kept")
            await pilot.press("y")
            await shows(pilot, "merged: ended; nothing was kept")

    asyncio.run(session())
    assert [path.name for path in run.exports.iterdir() if path.name != ".reference"] == []
