"""Which methods a dataset can serve, and what is missing for the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engine.data.worked import KIND as WITH_STEPS
from engine.data.worked import unknown_words
from recipes.comparison import all_cards
from recipes.methods.card import Card

FORMS = {
    "conversations": ("conversation", "question"),
    "preference pairs": ("preference",),
    "prompts with answers": ("question",),
    "prompts with answers and steps": ("question",),
    "questions with answers": ("question",),
    "contrast pairs": ("contrast",),
}
"""The kind of data on a method's card -> forms of a row that it can use."""
COLUMNS = {
    "conversations": "`prompt` and `completion`, or `messages`",
    "preference pairs": "`prompt`, `chosen` and `rejected`",
    "prompts with answers": "`prompt` and `answer`",
    "prompts with answers and steps": "`prompt`, `answer` and `steps`",
    "questions with answers": "`prompt` and `answer`",
    "contrast pairs": "`prompt`, `positive` and `negative`",
}
LEAST_GAP = 0.15


@dataclass(frozen=True)
class Amounts:
    """What was counted: ``usable`` rows are those that teach something (no repetitions, no pairs of equal sides), ``with_steps``
    those that say how many steps a solution needs."""

    usable: int
    answered: int
    with_steps: int
    gap: float | None


@dataclass(frozen=True)
class Served:
    """``ready``; ``thin`` trains but falls short of what the method asks for; ``no``; ``none needed``."""

    method: str
    verdict: Literal["ready", "thin", "no", "none needed"]
    why: str


def served(form: str, amounts: Amounts) -> list[Served]:
    """Every method's verdict, in the order of the comparison."""
    return [_judge(card, form, amounts) for card in all_cards()]


def forms_of(card: Card) -> tuple[str, ...]:
    return FORMS.get(card.data.kind, ())


def _judge(card: Card, form: str, amounts: Amounts) -> Served:
    needs = card.data
    if needs.kind not in FORMS:
        return Served(card.name, "none needed", needs.quality)
    if form not in FORMS[needs.kind]:
        extra = ""
        if form == "preference" and needs.kind == "conversations":
            extra = "; the chosen side alone would do: --columns completion=chosen"
        return Served(card.name, "no", f"needs {needs.kind}: {COLUMNS[needs.kind]}{extra}")
    usable = amounts.answered if form == "question" and card.name not in UNKNOWABLE_TOO else amounts.usable
    if not usable:
        return Served(card.name, "no", "no usable row")
    short = []
    if needs.kind == WITH_STEPS and amounts.with_steps < usable:
        short.append(unknown_words(usable - amounts.with_steps, usable))
    if usable < needs.minimum:
        short.append(f"{usable} usable rows, {needs.minimum} are the least ({needs.recommended}+ recommended)")
    if form == "preference" and amounts.gap is not None and amounts.gap < LEAST_GAP:
        short.append(f"preference gap {amounts.gap:.2f}, {LEAST_GAP} or more is wanted")
    if short:
        return Served(card.name, "thin", "; ".join(short))
    few = f" ({needs.recommended}+ recommended)" if usable < needs.recommended else ""
    return Served(card.name, "ready", f"{usable} usable rows{few}")


UNKNOWABLE_TOO = ("calibration", "anti_hallucination")
"""Methods that learn from questions without an answer too."""
