"""Copy something of a run: by OSC 52, which also reaches the clipboard of the machine one sits at over SSH."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from engine.runs.directory import RunDirectory
from tui.screens.help import HELP_KEY
from tui.view.run_view import RunView

LONGEST = 60_000
"""Characters: terminals cut longer OSC 52 sequences off, or drop them."""

WIDTH = 84
"""Cells of the dialog, where the terminal has them."""


def offered(run: RunDirectory, view: RunView | None) -> list[tuple[str, str]]:
    """(what it is, the text) of everything that can be copied."""
    found = [
        ("the run's directory", str(run.path)),
        ("the run's id", run.id),
        ("the command that watches it", f"finetune-tui attach {run.id}"),
    ]
    if view is None:
        return found
    if view.status in ("paused", "stopped", "failed", "interrupted"):
        found.append(("the command that resumes it", f"finetune-tui resume {run.id}"))
    if view.status == "done":
        found.append(("the report's path", str(run.report)))
    if view.samples:
        newest = view.samples[-1]
        found.append(("the newest sample", f"{newest.prompt}\n{newest.completion}"))
    told = [f"{one.text}: {one.mend}" for one in view.conditions]
    told += [alert.text for alert in view.alerts if alert.level != "info"]
    if told:
        found.append(("the alerts", "\n".join(told)))
    return found


class CopyFrom(ModalScreen[None]):
    BINDINGS = [Binding("escape,q,y", "close", "close"), HELP_KEY]

    def __init__(self, texts: list[tuple[str, str]]) -> None:
        super().__init__()
        self._texts = texts

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static("Copy", id="question", markup=False)
            room = min(WIDTH, self.app.size.width) - 16
            lines = [
                Content.assemble((name, "bold"), (f"  {text.splitlines()[0] if text else ''}", "dim"))
                for name, text in self._texts
            ]
            yield OptionList(*(Option(line.truncate(room, ellipsis=True)) for line in lines), id="texts")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        name, text = self._texts[event.option_index]
        self.app.copy_to_clipboard(text[:LONGEST])
        self.notify(f"copied {name}", timeout=2, markup=False)
        self.dismiss(None)

    def action_close(self) -> None:
        self.dismiss(None)
