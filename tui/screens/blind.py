"""Two replies to the same prompt, nobody says whose: one key prefers."""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from engine.chat.blind import Blind, Choice, prompts_from
from engine.chat.messages import Done, Event, Failed, Ready
from engine.chat.process import ChatProcess
from engine.chat.settings import Settings
from engine.runs.directory import RunDirectory
from recipes.errors import InputError
from tui.screens.help import Help
from tui.widgets.footer import Footer

TICK = 1 / 10
HELP = """\
KEYS
  1 or ←     the left reply is better    2 or →   the right one is
  t or ↓     a tie                       b        both are bad
  u          take the last choice back   v        the tally, before the end
  Esc        leave; the same comparison goes on later where it was left

The same prompts go through both stages with the same seed. Which is on which
side is drawn anew for each prompt and not told. Equal replies are not shown.
Decided pairs are kept as prompt, chosen, rejected: DPO, ORPO and CPO train on
them; `finetune-tui data FILE` says more.
"""


class BlindScreen(Screen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("1,left", "choose('left')", "left", key_display="1"),
        Binding("2,right", "choose('right')", "right", key_display="2"),
        Binding("t,down", "choose('tie')", "tie", key_display="t"),
        Binding("b", "choose('bad')", "both bad"),
        Binding("u", "undo", "undo"),
        Binding("v", "reveal", "tally"),
        Binding("escape", "leave", "leave"),
        Binding("f1,question_mark", "help", "help", key_display="?"),
    ]

    def __init__(self, made: Blind) -> None:
        super().__init__()
        self.made = made
        self._heard: deque[Event] = deque()
        self._process: ChatProcess | None = None
        self._asking = False
        self._loaded = False
        self._revealed = False

    def compose(self) -> ComposeResult:
        yield Static("", id="headline", markup=False)
        yield Static("", id="question", markup=False)
        with Horizontal(id="talk"):
            for number in (1, 2):
                with VerticalScroll(id=f"reply-{number}", classes="side", can_focus=False):
                    yield Static(str(number), classes="side--label")
                    yield Static("", id=f"text-{number}", markup=False)
        yield Static("", id="facts", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        self._show()
        if not self.made.finished:
            made = self.made
            self._process = ChatProcess(made.run, made.stage, made.against, self._heard.append)
            self.set_interval(TICK, self._listen)

    def on_unmount(self) -> None:
        if self._process is not None:
            self._process.close()

    # ---- what comes in -------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        while self._heard:
            event = self._heard.popleft()
            if isinstance(event, Ready):
                self._loaded = True
            elif isinstance(event, Done):
                if self.made.replied(event):
                    self._asking = False
                    self._show()
            elif isinstance(event, Failed):
                self.notify(event.text, severity="error", timeout=20, markup=False)
        if self._loaded and not self._asking:  # the next pairs are made while this one is read
            say = self.made.wanted()
            if say is not None and self._process is not None:
                self._asking = True
                self._process.send(say)

    # ---- what is shown -------------------------------------------------------------------------------------------

    def _show(self) -> None:
        made = self.made
        index, tally = made.open(), made.tally()
        judged = len(made.choices) + tally.same
        self.query_one("#headline", Static).update(
            Content.assemble((f"blind {made.run.id}", "bold"), f"  {judged} of {len(made.prompts)}")
        )
        question, texts = "", ("", "")
        if index is not None:
            question, texts = made.pairs[index].prompt[-1]["content"], made.shown(index)
        elif made.finished:
            question = "All pairs are judged."
        else:
            question = "the next pair is being written …" if self._loaded else "loading …"
        self.query_one("#question", Static).update(Content.styled(question, "bold $accent"))
        for number, text in enumerate(texts, start=1):
            self.query_one(f"#text-{number}", Static).update(text)
        facts = "Which is better?" if index is not None else ""
        if made.finished or self._revealed:
            facts = tally.words(f"stage {made.stage}", made.against)
            if made.finished and tally.decided:
                facts += f"\nPreference pairs to train on: {made.preferences}"
        self.query_one("#facts", Static).update(facts)
        self.refresh_bindings()

    # ---- what the keys do ----------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "choose":
            return True if self.made.open() is not None else None
        if action == "undo":
            return True if self.made.choices else None
        return True

    def action_choose(self, choice: Choice) -> None:
        index = self.made.open()
        if index is not None:
            self.made.choose(index, choice)
            self._show()

    def action_undo(self) -> None:
        self.made.undo()
        self._show()

    def action_reveal(self) -> None:
        self._revealed = not self._revealed
        self._show()

    def action_leave(self) -> None:
        if len(self.app.screen_stack) > 1:
            self.app.pop_screen()

    def action_help(self) -> None:
        self.app.push_screen(Help(HELP))


def blind_with(app: Any, run: RunDirectory, stage: str, against: str, settings: Settings) -> None:
    """From a chat, in its place: its models make room. The prompts are the run's held-out ones, else general ones."""
    try:
        try:
            prompts = prompts_from(run, "heldout", stage, 20, settings.seed)
        except InputError:
            prompts = prompts_from(run, "general", stage, 20, settings.seed)
        made = Blind(run, stage, against, prompts, settings)
    except InputError as error:
        app.screen.notify(str(error), severity="error", timeout=15, markup=False)
        return
    app.switch_screen(BlindScreen(made))
