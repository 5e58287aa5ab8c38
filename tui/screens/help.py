"""What the keys do and what the words on the screen mean."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

TEXT = """\
KEYS
  Enter      open the run            Esc      back to the runs
  n          new recipe, guided      i        look a dataset over
  d          start the demo          p        pause at the next step
  r          resume                  s        stop at the next step (asks)
  x          remove a run (asks)     Tab      next part of the screen
  1 2 3 4    gates, samples, alerts, log
  [ ]        the stage before, the stage after
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

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="help"):
            yield Static(TEXT, markup=False)

    def action_close(self) -> None:
        self.dismiss(None)
