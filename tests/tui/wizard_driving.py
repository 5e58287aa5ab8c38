"""Walking the guided way by keys, on a machine that is always the same."""

from __future__ import annotations

import asyncio

from engine.forecast.hardware import find_hardware
from engine.hardware.machine import Cpu, Disk, Machine, Power, Ram
from tests.tui.driving import at_rest, settled, walk
from tui.app import FinetuneApp
from tui.wizard import keep
from tui.wizard.draft import draft, source_at_hand
from tui.wizard.state import Source, Wizard, answer, choose_model, choose_plan, choose_source, plans, write

GIB = 2**30
MACHINE = Machine(
    system="Linux", release="6.8", architecture="x86_64", distribution=None, wsl=False, python="3.11",
    cpu=Cpu("a processor of the tests", 8, 16), ram=Ram(32 * GIB, 24 * GIB),
    disks={"runs": Disk("/home", 500 * GIB, 120 * GIB, True)}, power=Power(True),
)  # fmt: skip


def on_machine(monkeypatch, name="rtx-3090"):
    """Every probe answers with this machine."""
    hardware = find_hardware(name)
    monkeypatch.setattr("tui.machine_book.hardware", lambda: hardware)
    monkeypatch.setattr("tui.machine_book.machine", lambda: MACHINE)


def drive(*steps, size=(80, 24), first="No runs yet", look=None):
    """Open the app, walk; the screen's text, or what ``look(app)`` gives. A new way begins where none was."""
    if steps and steps[0] == ("n", "What is your goal?"):
        keep.forget()

    async def session():
        app = FinetuneApp()
        async with app.run_test(size=size) as pilot:
            await settled(pilot, first)
            await walk(pilot, *steps)
            text = await at_rest(pilot)
            return look(app) if look else text

    return asyncio.run(session())


TO_MODEL = (
    ("n", "What is your goal?"),
    ("2", "suggests"),
    ("enter", "It comes to this: DPO"),
    ("enter", "Which model?"),
)
TO_DATA = (*TO_MODEL, ("", "GiB ✓"), ("enter", "Go on with these rows"))
TO_FIT = (*TO_DATA, ("enter", "It fits"))
TO_RECIPE = (*TO_FIT, ("enter", "✓ fits  "))


def begun(page="recipe", model="lab", path="lab/preferences.jsonl"):
    """As if somebody had come to a page and left: a DPO on the lab's pairs, or another model's. The keys to go on."""
    wizard = Wizard()
    for word in ("preferences", "available"):
        wizard = answer(wizard, word)
    wizard = choose_model(choose_plan(wizard, plans(wizard)[0]), model)
    source = source_at_hand(wizard, 0) if model == "lab" else Source(path, rows=1200)
    wizard = choose_source(wizard, source)
    keep.keep(write(wizard, draft(wizard), page))
    shows = {"recipe": "GiB of", "fit": "fit"}[page]
    return (("n", "A recipe was begun"), ("y", shows))
