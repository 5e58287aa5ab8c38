"""Which model: the lab's, one on this machine, one of the catalogue, or one that the hub finds."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static
from textual.widgets.option_list import Option

from tui.background import beside
from tui.screens.wizard.page import Page
from tui.screens.wizard.picker import Picker
from tui.wizard.models import Choice, at_hand, fault, matching, needed
from tui.wizard.paths import complete
from tui.wizard.state import Wizard, choose_model
from tui.wizard.words import SIGNS, amount, size


class ModelPage(Page):
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f3", "hub", "search the hub", tooltip="Ask the hub for what is typed")
    ]
    WHY = (
        "What is trained is a copy's adapter: the model itself is never changed. The figure beside each model is the least "
        "that your methods take of this machine (4 bit, one row at a time, 512 tokens); the page `fit` looks at the recipe "
        "itself.\n\nType to narrow the list; type a path (it completes) for a model of your own; type owner/name for one of "
        "the hub. Nothing is downloaded before the run starts, and F3 alone asks the hub."
    )

    def __init__(self, wizard: Wizard) -> None:
        super().__init__(wizard)
        self._choices: list[Choice] = [Choice("lab", "lab", 0, "3 M parameters, to learn and to try")]
        self._needs: dict[str, tuple[float, str] | None] = {}
        self._typed = ""

    def body(self) -> ComposeResult:
        yield Static("Which model?", id="question", markup=False)
        yield Picker("", "type to narrow; a path, or owner/name of the hub", id="picker")
        yield Static("", id="model-says", markup=False)

    def on_mount(self) -> None:
        super().on_mount()
        self._list(self.wizard.model or "lab")
        beside(self, at_hand, self._know)
        beside(self, self._prices, self._priced)

    def on_resize(self) -> None:
        super().on_resize()
        if self.query(Picker):
            self._list(self.query_one(Picker).pointed)

    # ---- the list ------------------------------------------------------------------------------------------------

    def _know(self, choices: list[Choice]) -> None:
        known = {one.word for one in choices}
        self._choices = choices + [one for one in self._choices if one.word not in known and one.kind == "hub"]
        if self.wizard.model and self.wizard.model not in known:
            self._choices.insert(0, Choice(self.wizard.model, "here", 0, "chosen before"))
        self._list(self.wizard.model or "lab")

    def _prices(self) -> dict[str, tuple[float, str] | None]:
        from tui.machine_book import hardware

        assert self.wizard.plan is not None
        machine, methods = hardware(), self.wizard.plan.methods
        return {one.word: needed(one.word, methods, machine) for one in at_hand()}

    def _priced(self, found: dict[str, tuple[float, str] | None]) -> None:
        self._needs |= found
        self._list(self.query_one(Picker).pointed)

    def _list(self, pointed: str | None) -> None:
        typed = self._typed
        found = matching(self._choices, typed)
        options = [Option(self._words(one), id=one.word) for one in found]
        if typed.startswith(("/", "~", ".")):
            folders = complete(typed, None)
            options = [
                Option(Content.assemble(one.word, ("  a model" if one.model else "", "$success")), id=one.word) for one in folders
            ]  # fmt: skip
        elif typed and not any(one.word == typed for one in found) and not fault(typed, Path.cwd()):
            options.append(Option(Content.assemble(typed, ("  from the hub, when the run starts", "dim")), id=typed))
        self.query_one(Picker).show(options, pointed)

    def _words(self, one: Choice) -> Content:
        width = self.app.size.width
        wide, narrow = width >= 100, width < 76
        room = 46 if wide else max(16, width - (20 if narrow else 39))
        name = one.word if len(one.word) < room else one.word[: room - 2] + "…"
        parts: list[tuple[str, str]] = [(f"{name:<{room}}", "bold" if one.kind in ("lab", "here") else "")]
        if not narrow:
            parts.append((f"{amount(one.parameters) if one.parameters else '':>8} ", ""))
        need = self._needs.get(one.word)
        if need:
            sign = SIGNS[need[1]]
            judged = "" if narrow else f" {need[1]:<12}"
            parts += [(f"{size(need[0]):>9} ", ""), (f"{sign[1] if self.plain else sign[0]}{judged}", sign[2])]
        elif wide:
            parts.append((f"{'':<24}", ""))
        if wide:
            parts.append((f"  {one.note or {'catalogue': 'downloaded at the start'}.get(one.kind, '')}", "dim"))
        return Content.assemble(*parts)

    # ---- keys ----------------------------------------------------------------------------------------------------

    def on_picker_typed(self, event: Picker.Typed) -> None:
        self._typed = event.words.strip()
        self.put("model-says", "")
        self._list(self.wizard.model or "lab" if not self._typed else None)

    def on_picker_picked(self, event: Picker.Picked) -> None:
        word, picker = event.word, self.query_one(Picker)
        entry = word.rstrip("/") if len(word) > 1 else word
        said = fault(entry, Path.cwd())
        if said and word.endswith("/") and word != picker.input.value:
            picker.fill(word)
            return
        if said:
            self.put("model-says", Content.styled(said, "$error"))
            return
        if entry.startswith(("/", "~", ".")):
            entry = str(Path(entry).expanduser().resolve())
        self.go(choose_model(self.wizard, entry))

    def action_hub(self) -> None:
        from engine.models.hub_search import offline, search

        if offline():
            self.put("model-says", Content.styled("the hub is not asked: HF_HUB_OFFLINE is set", "$warning"))
            return
        if not self._typed:
            self.put("model-says", Content.styled("type a word to search the hub for", "$warning"))
            return
        words = self._typed
        self.put("model-says", f"asking the hub for `{words}`")

        def found(models: list) -> None:  # type: ignore[type-arg]
            new = [Choice(one.id, "hub", 0, "gated: its terms must be accepted" if one.gated else f"{one.downloads} downloads") for one in models]  # fmt: skip
            known = {one.word for one in new}
            self._choices = [one for one in self._choices if one.word not in known] + new
            self.put(
                "model-says", f"{len(new)} on the hub for `{words}`" if new else f"nothing on the hub for `{words}`"
            )
            self._list(new[0].word if new else None)

        def failed(error: Exception) -> None:
            self.put("model-says", Content.styled(f"the hub cannot be asked: {error}", "$error"))

        beside(self, lambda: search(words), found, failed)
