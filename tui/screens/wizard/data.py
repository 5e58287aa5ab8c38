"""The data of one stage: named, looked over, read the way that is meant."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Static

from engine.data.served import COLUMNS
from recipes.comparison import recommended_words, short_title
from recipes.methods import cards
from recipes.resources import resolve_model
from tui.screens.wizard.page import Page
from tui.widgets.data_panel import DataPanel
from tui.wizard.draft import draft, read, source_at_hand
from tui.wizard.state import Source, choose_source


class DataPage(Page):
    WHY = (
        "The rows are read as the run will read them, in a process of its own, and what a run would refuse is told now, "
        "with its line and its mend. What is trained on is coloured. ← and → change which of your columns plays which "
        "part; nothing is guessed where two readings are as good.\n\nHeld-out rows are never trained on: every gate is "
        "measured on them."
    )

    def body(self) -> ComposeResult:
        assert self.wizard.plan is not None
        method = self.wizard.plan.methods[self.wizard.stage]
        source = self.wizard.sources[self.wizard.stage]
        at_hand = source_at_hand(self.wizard, self.wizard.stage)
        if not source.path:
            source = replace(at_hand, words={**source.words, **at_hand.words})
        elif source.path == at_hand.path:  # the lab's own words of the data go with them
            source = replace(source, words={**at_hand.words, **source.words})
        yield Static(self._heading(method), id="data-question", markup=False)
        local = resolve_model(self.wizard.model, _here())
        model = str(local) if local and (local / "tokenizer.json").is_file() else None
        yield DataPanel(source, method, model, self._limit(), self._verifier)

    def _heading(self, method: str) -> Content:
        assert self.wizard.plan is not None
        card = cards()[method]
        stages = len(self.wizard.plan.methods)
        number = f"stage {self.wizard.stage + 1} of {stages}, " if stages > 1 else ""
        needs = f"{card.data.minimum} rows at least, {recommended_words(card)} recommended"
        columns = COLUMNS[card.data.kind]
        return Content.assemble(
            (f"{number}{short_title(card)}: ", "bold"), (self.words(card.data.kind), "bold $accent"),
            (f"  {columns}; {needs}", "dim"),
        )  # fmt: skip

    def _limit(self) -> int | None:
        """The ``max_length`` that the recipe will have."""
        raw: dict[str, Any] = read(draft(self.wizard)) or {}
        limit = raw["stages"][self.wizard.stage].get("max_length")
        return limit if isinstance(limit, int) else None

    def _verifier(self, source: Source) -> dict[str, Any] | None:
        """The ``verifier:`` that the recipe will have with this source."""
        sources = list(self.wizard.sources)
        sources[self.wizard.stage] = source
        raw: dict[str, Any] = read(draft(replace(self.wizard, sources=tuple(sources)))) or {}
        found = raw["stages"][self.wizard.stage].get("verifier")
        return found if isinstance(found, dict) else None

    def on_data_panel_changed(self, event: DataPanel.Changed) -> None:
        sources = list(self.wizard.sources)
        sources[self.wizard.stage] = event.source
        self.remember(replace(self.wizard, sources=tuple(sources)))

    def on_data_panel_done(self, event: DataPanel.Done) -> None:
        self.go(choose_source(self.wizard, event.source))


def _here():  # type: ignore[no-untyped-def]
    from pathlib import Path

    return Path.cwd()
