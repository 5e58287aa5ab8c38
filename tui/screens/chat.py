"""Talk with a stage of a run, another beside it, and dials for what steers it: live, between and during replies."""

from __future__ import annotations

from collections import deque
from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input, Static

from engine.chat.messages import Done, Event, Failed, Open, Ready, Say, Spoken, Status, Stop, Turn, Turned
from engine.chat.places import BASE, find_place, places
from engine.chat.process import ChatProcess
from engine.chat.session import SIDES, Session
from engine.chat.settings import GAUGES, Settings, changed
from engine.runs.directory import RunDirectory
from recipes.errors import InputError
from tui.chat_words import SETTINGS, dial_of, parse, said
from tui.screens.help import Help
from tui.view.chat_view import angle_words, mark, reply_words
from tui.widgets.dial import DialBar
from tui.widgets.footer import Footer

TICK = 1 / 15
MARKS = ("", "$warning underline", "bold $error reverse")
HELP = """\
KEYS
  Enter      say it                  Esc      stop the reply; else leave
  Tab        to the dials and back   ← →      turn a dial (Shift: finely)
  0 1        a dial to zero, to one  F5       again, with another seed
  F2         system prompt, sampling F3       what is beside it
  F4         another stage           F6       colours: KL, logprob, off
  F7         judge blind             F8       begin again
  F1 or ?    this page (? when the line is empty or a dial has the focus)

TYPED
  /dial warm 0.5   /system Be brief.   /temperature 0   /stage 2   /compare base
  /top_p  /max_tokens  /seed  /gauge  /regenerate  /clear;   // says a slash

WORDS
  dial       a steering vector's strength (1: as calibrated, negative: the other
             way), or how much of the abliteration acts; the next token feels it
  KL         how far a token's distribution is from the base model's, in nats
  logprob    how surprised the model itself is by a token
  confidence the calibrated probability of the whole reply, if the run has one
  cosine     of two vectors: near 0 they compose, near -1 they undo each other

What is said is kept in the run's `chats`; `finetune-tui chat --continue` goes on.
"""


class Line(Input):
    """What is said next; ``?`` in an empty one asks for help."""

    async def _on_key(self, event: Any) -> None:
        if event.character == "?" and not self.value:
            event.stop()
            event.prevent_default()
            self.screen.action_help()  # type: ignore[attr-defined]
            return
        await super()._on_key(event)


class Chat(Screen[None]):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "stop"),
        Binding("escape", "back", "leave"),
        Binding("f5", "again", "again"),
        Binding("f3", "beside", "beside"),
        Binding("f4", "stage", "stage"),
        Binding("f2", "settings", "settings"),
        Binding("f6", "colours", "colours"),
        Binding("f8", "clear", "clear"),
        Binding("f7", "blind", "blind"),
        Binding("f1,question_mark", "help", "help", key_display="F1"),
    ]

    def __init__(self, session: Session, checked: bool = False) -> None:
        super().__init__()
        self.session = session
        self._checked = checked
        self._heard: deque[Event] = deque()
        self._process: ChatProcess | None = None
        self._ready: Ready | None = None
        self._speaking: set[str] = set()
        self._spans: dict[tuple[int, str], list[tuple[str, int]]] = {}
        self._dirty: set[tuple[int, str]] = set()
        self._drawn = 0
        self._says = ""

    def compose(self) -> ComposeResult:
        yield Static("", id="headline", markup=False)
        with Horizontal(id="talk"):
            for side in SIDES:
                with VerticalScroll(id=side, classes="side", can_focus=False):
                    yield Static("", id=f"{side}-label", classes="side--label", markup=False)
        yield Vertical(id="dials")
        yield Static("", id="facts", markup=False)
        yield Line(placeholder="loading …", id="say")
        yield Footer()

    def on_mount(self) -> None:
        self._headline()
        self.query_one("#say").focus()
        self.set_interval(TICK, self._listen)
        self._start()

    def on_unmount(self) -> None:
        if self._process is not None:
            self._process.close()

    def _start(self) -> None:
        session = self.session
        self._process = ChatProcess(session.run, session.stage, session.compare, self._heard.append)
        self._told(f"loading {session.stage}")

    # ---- what comes in -------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        while self._heard:
            self._hear(self._heard.popleft())
        for turn, side in list(self._dirty):
            self._draw(turn, side)
        self._dirty.clear()

    def _hear(self, event: Event) -> None:
        session = self.session
        if isinstance(event, Spoken):
            spans = self._spans.setdefault((event.turn, event.side), [])
            spans.append((event.text, mark(session.settings.gauge, event)))
            self._dirty.add((event.turn, event.side))
        elif isinstance(event, Done):
            session.replied(event)
            self._speaking.discard(event.side)
            self._dirty.add((event.turn, event.side))
            if not self._speaking:
                self._told("")
        elif isinstance(event, Ready):
            self._take(event)
        elif isinstance(event, Turned):
            session.turned(event.name, event.value)
            for bar in self.query(DialBar):
                if bar.dial.name == event.name:
                    bar.show(event.value)
            self._told(self._says)
        elif isinstance(event, Status):
            self._told(event.text)
        elif isinstance(event, Failed):
            self._speaking.clear()
            self._told("")
            self.notify(event.text, severity="error", timeout=20, markup=False)
            if event.fatal:
                self._ready = None
                self._told("the models are not loaded: Esc leaves")
                self.query_one("#say", Line).placeholder = "not loaded"
        if not isinstance(event, Spoken):
            self.refresh_bindings()

    def _take(self, ready: Ready) -> None:
        """The stages are loaded: show their names, their dials, and what was said so far."""
        self._ready = ready
        for name, value in self.session.ready(ready).items():
            self._send(Turn(name, value))
        self.query_one("#say", Line).placeholder = "say something, or /help"
        self.query_one("#tuned-label", Static).update(ready.stage)
        self.query_one("#compared-label", Static).update(ready.compare)
        self.query_one("#compared").display = bool(ready.compare)
        dials = self.query_one("#dials", Vertical)
        dials.remove_children()
        plain = self.app.ascii_only  # type: ignore[attr-defined]
        dials.mount_all([DialBar(dial, plain) for dial in ready.dials])
        self._headline()
        self._told("")
        self._redraw()

    # ---- what is shown -------------------------------------------------------------------------------------------

    def _headline(self) -> None:
        settings = self.session.settings
        parts = [f"temperature {settings.temperature:g}"]
        parts += [f"top-p {settings.top_p:g}"] if settings.top_p < 1 else []
        parts += [f"seed {settings.seed}"] if settings.seed else []
        parts += [f"coloured by {settings.gauge}"] if settings.gauge else []
        parts += [f"system: {settings.system}"] if settings.system else []
        self.query_one("#headline", Static).update(
            Content.assemble(("chat ", "bold"), (self.session.run.id, "bold"), "  ", (", ".join(parts), "dim"))
        )

    def _told(self, text: str) -> None:
        """What is going on; when nothing is, how the vectors stand to each other."""
        self._says = text
        if not text and self._ready is not None:
            acting = [name for name, dial in self.session.dials.items() if dial.value]
            text = angle_words(self._ready.cosines, acting)
        self.query_one("#facts", Static).update(text)

    def _redraw(self) -> None:
        for side in SIDES:
            for old in self.query(f"#{side} .turn"):
                old.remove()
        self._drawn = 0
        self._grow()

    def _grow(self) -> None:
        """A place on each side for every exchange."""
        for turn in range(self._drawn, len(self.session.exchanges)):
            for side in SIDES:
                column = self.query_one(f"#{side}", VerticalScroll)
                column.mount(Static(self._words(turn, side), name=str(turn), classes="turn", markup=False))
                column.scroll_end(animate=False)
        self._drawn = len(self.session.exchanges)

    def _draw(self, turn: int, side: str) -> None:
        for one in self.query(f"#{side} .turn").results(Static):
            if one.name == str(turn) and turn < len(self.session.exchanges):
                one.update(self._words(turn, side))
        self.query_one(f"#{side}", VerticalScroll).scroll_end(animate=False)

    def _words(self, turn: int, side: str) -> Content:
        exchange = self.session.exchanges[turn]
        done, spans = exchange.replies.get(side), self._spans.get((turn, side), [])
        reply: list[Content | tuple[str, str] | str] = [(text, MARKS[level]) for text, level in spans]
        if not reply and done is not None:
            reply = [done.text]
        parts = [(f"> {exchange.prompt}\n", "bold $accent"), *reply]
        if done is not None:
            parts.append((f"\n{reply_words(done)}\n", "dim italic"))
        return Content.assemble(*parts)

    # ---- what is said --------------------------------------------------------------------------------------------

    def on_input_submitted(self, event: Input.Submitted) -> None:
        text = event.value.strip()
        if not text or self._ready is None:
            return
        try:
            word = parse(text)
            if word is None:
                self._speak(self.session.say(said(text)))
            else:
                self._obey(word.name, word.rest)
        except InputError as error:
            self.notify(str(error), severity="error", timeout=15, markup=False)
            return
        event.input.clear()

    def _obey(self, name: str, rest: str) -> None:
        session = self.session
        if name in SETTINGS:
            self._set(changed(session.settings, name, rest))
        elif name == "dial":
            self._send(Turn(*dial_of(rest, list(session.dials))))
        elif name == "stage":
            self._move(find_place(session.run, rest or None, "/stage").word, session.compare)
        elif name == "compare":
            none = rest in ("", "off", "none")
            self._move(session.stage, "" if none else find_place(session.run, rest, "/compare").word)
        elif name == "settings":
            self.action_settings()
        elif name == "help":
            self.action_help()
        elif name == "regenerate":
            self.action_again()
        elif name == "clear":
            self.action_clear()
        elif name == "quit":
            self.action_back()

    def _speak(self, say: Say) -> None:
        for side in SIDES:
            self._spans.pop((say.turn, side), None)
        self._speaking = set(say.conversations)
        self._grow()
        self._dirty |= {(say.turn, side) for side in SIDES}
        self._told("replying; Esc stops")
        self._send(say)
        self.refresh_bindings()

    def _send(self, command: Any) -> None:
        if self._process is not None:
            self._process.send(command)

    def _move(self, stage: str, compare: str) -> None:
        """Other stages; the conversation goes on with them."""
        self.session.at(stage, compare)
        self._ready = None
        self._speaking.clear()
        self._told("loading …")
        self._send(Open(stage, compare))

    def _set(self, settings: Settings | None) -> None:
        if settings is not None:
            self.session.set(settings)
            self._headline()

    def on_dial_bar_turned(self, event: DialBar.Turned) -> None:
        self._send(Turn(event.name, event.value))

    # ---- what the keys do ----------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "stop":
            return bool(self._speaking)
        if action == "back":
            return not self._speaking
        if action in ("again", "clear"):
            return True if self.session.exchanges and self._ready and not self._speaking else None
        if action in ("beside", "stage"):
            return True if self._ready and not self._speaking else None
        return True

    def action_stop(self) -> None:
        self._send(Stop())

    def action_back(self) -> None:
        if len(self.app.screen_stack) > 1:
            self.app.pop_screen()

    def action_again(self) -> None:
        say = self.session.regenerate()
        if say is not None:
            self._speak(say)

    def action_clear(self) -> None:
        self.session.clear()
        self._spans.clear()
        self._redraw()
        self.refresh_bindings()

    def action_beside(self) -> None:
        """Nothing beside it, then everything else that the run has, one after the other."""
        choices = ["", *(word for word in places(self.session.run) if word != self.session.stage)]
        now = choices.index(self.session.compare) if self.session.compare in choices else 0
        self._move(self.session.stage, choices[(now + 1) % len(choices)])

    def action_stage(self) -> None:
        choices = places(self.session.run)
        now = choices.index(self.session.stage)
        stage = choices[(now + 1) % len(choices)]
        self._move(stage, "" if self.session.compare == stage else self.session.compare)

    def action_colours(self) -> None:
        now = GAUGES.index(self.session.settings.gauge)
        self._set(changed(self.session.settings, "gauge", GAUGES[(now + 1) % len(GAUGES)]))
        words = {"": "no colours", "kl": "KL to the base", "logprob": "logprob"}[self.session.settings.gauge]
        self.notify(f"{words}, from the next reply on")

    def action_settings(self) -> None:
        from tui.screens.chat_settings import ChatSettings

        self.app.push_screen(ChatSettings(self.session.settings), self._set)

    def action_blind(self) -> None:
        from tui.screens.blind import blind_with

        session = self.session
        blind_with(self.app, session.run, session.stage, session.compare or BASE, session.settings)

    def action_help(self) -> None:
        self.app.push_screen(Help(HELP))


def chat_with(app: Any, run: RunDirectory) -> None:
    """Open a chat with the run's newest stage from another screen: asks where memory may not suffice."""
    screen = app.screen
    screen.run_worker(lambda: _open(screen, run), thread=True, exclusive=True, group="chat")


def _open(screen: Any, run: RunDirectory) -> None:
    from engine.chat.room import room_for
    from tui.screens.confirm import Confirm

    app = screen.app
    try:
        place = find_place(run, None)
        room = room_for(run, [place])
    except InputError as error:
        app.call_from_thread(screen.notify, str(error), severity="error", timeout=15, markup=False)
        return

    def begin(yes: bool | None = True) -> None:
        if yes:
            app.push_screen(Chat(Session(run, place.word, "", Settings())))

    if room.fits:
        app.call_from_thread(begin)
    else:
        question = f"{str(room).capitalize()}.\nLoad it all the same?"
        app.call_from_thread(app.push_screen, Confirm(question, "Load", "Leave it"), begin)
