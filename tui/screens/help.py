"""What the keys do and what the words on the screen mean."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

TEXT = """\
KEYS
  Enter      open the run            n        a new recipe, step by step
  d          start the demo          i        look a dataset over
  r          resume                  p        pause at the next step
  s          stop at the next step   x        remove a run (both ask)
  c          chat with the run       e        export: take it home
  v          compare runs            F2       settings
  Ctrl+Q     leave; runs go on in the background
  Ctrl+P     every command by name   ?        this page

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


class Help(ModalScreen[None]):
    BINDINGS = [Binding("escape,question_mark,q,enter", "close", "close")]

    def __init__(self, text: str | None = None) -> None:
        """``text``: the screen's own keys and words; default: those of the list of runs."""
        super().__init__()
        self._text = text or TEXT

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help"):
            yield Static(self._text, markup=False)

    def action_close(self) -> None:
        self.dismiss(None)
