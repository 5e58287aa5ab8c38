"""What the keys do and what the words on the screen mean."""

from __future__ import annotations

from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import Input, OptionList, Static, TextArea

TEXT = """\
KEYS
  Enter      open the run            n        a new recipe, step by step
  d          start the demo          i        look a dataset over
  r          resume                  p        pause at the next step
  s          stop at the next step   x        remove a run (both ask)
  c          chat with the run       e        export: take it home
  v          compare runs            F2       settings
  Ctrl+Q, q  leave; runs go on in the background
  Ctrl+P, :  every command by name   ?, F1    this page
             (zellij, VS Code and others take Ctrl+Q and Ctrl+P for themselves)

WORDS
  loss       of the training batch, per token; its target is to fall
  KL est     how far the model has moved from where the stage began, in nats per
             token, exact, at the positions of the training batch (an estimate of
             what the gate measures on the model's own completions)
  margin     how much more a preference stage's policy prefers the chosen
             completion than its reference does, times beta (the reward of DPO)
  ┃ or |     in a gauge: the target, from the method's card or the recipe
  gate       a figure measured on held-out data against its limit; n is how many
             cases are behind it
  paused     at a checkpoint; resume goes on with the very next step
  interrupted  nobody works on it: it was killed, or the machine went down;
             resume carries on, to the bit
"""


HELP_KEY = Binding("question_mark,f1", "app.help_anyway", "help", show=False)
"""For dialogs, which the app's own keys do not reach. Where one types, ? is a letter and F1 helps."""
NAMED = {
    "escape": "Esc",
    "question_mark": "?",
    "pagedown": "PgDn",
    "pageup": "PgUp",
    "space": "Space",
    "enter": "Enter",
}
KEYS_WIDE = 11
EVERYWHERE = ("app.focus_next", "app.focus_previous", "screen.copy_text", "app.help_quit")
"""Textual's own, which need no telling."""


def keys_of(screen: Screen[Any]) -> str:
    """What the keys do here and now, read off the screen's own bindings: for every screen that has no page of its own."""
    rows: dict[str, list[str]] = {}
    for key, (node, binding, enabled, tooltip) in screen.active_bindings.items():
        ours = type(node).__module__.startswith("tui.")
        words = tooltip or binding.tooltip or binding.description
        if ours and enabled and words and not binding.system and binding.action not in EVERYWHERE:
            keys = rows.setdefault(words, [])
            name = NAMED.get(key) or screen.app.get_key_display(binding)
            if name not in keys:
                keys.append(name)
    lines = [f"  {', '.join(keys):<{KEYS_WIDE - 1}} {words}" for words, keys in rows.items()]
    focused = screen.focused
    if isinstance(focused, OptionList):
        lines.insert(0, f"  {'Up, Down':<{KEYS_WIDE}}from line to line; Enter takes one")
    elif isinstance(focused, Input | TextArea):
        lines.insert(0, f"  {'letters':<{KEYS_WIDE}}are typed, ? too; F1 helps")
    return "KEYS\n" + "\n".join(lines) + "\n"


class Help(ModalScreen[None]):
    BINDINGS = [Binding("escape,question_mark,f1,q,enter", "close", "close")]

    def __init__(self, text: str | None = None) -> None:
        """``text``: the screen's own keys and words; default: those of the list of runs."""
        super().__init__()
        self._text = text or TEXT

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help"):
            yield Static(self._text, markup=False)

    def action_close(self) -> None:
        self.dismiss(None)
