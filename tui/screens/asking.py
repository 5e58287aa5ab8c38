"""Ask where it matters, then steer a run in a thread and say how it went."""

from __future__ import annotations

from collections.abc import Callable

from textual.screen import Screen

from engine.runs.directory import RunDirectory
from tui.screens.confirm import Confirm

QUESTIONS = {
    "stop": ("Stop {id}?\nIt saves at the next step; resume can still carry on.", "Stop", "Let it run"),
    "remove": ("Remove {id}?\nEverything it wrote goes: checkpoints, adapters, report.", "Remove", "Keep"),
}


def ask_and_do(screen: Screen[None], word: str, run: RunDirectory, then: Callable[[], None] | None = None) -> None:
    """``then`` is called on the screen's thread when it is done."""

    def work() -> None:
        from tui.steering import Refused, do

        try:
            said = do(word, run)
        except Refused as refused:
            screen.app.call_from_thread(screen.notify, str(refused), severity="error", timeout=15, markup=False)
            return
        screen.app.call_from_thread(screen.notify, said, markup=False)
        if then:
            screen.app.call_from_thread(then)

    def begin(yes: bool | None) -> None:
        if yes:
            screen.run_worker(work, thread=True, group="steer")

    if word in QUESTIONS:
        question, yes, no = QUESTIONS[word]
        screen.app.push_screen(Confirm(question.format(id=run.id), yes, no), begin)
    else:
        begin(True)
