"""What the guided way says, as plain lines: cards, figures, verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from recipes.comparison import memory_words, recommended_words, short_title, time_words
from recipes.methods import cards
from recipes.methods.card import Card
from recipes.strategies import STRATEGIES
from tui.wizard.state import Plan

SIGNS = {"fits": ("✓", "+", "$success"), "tight": ("▲", "!", "$warning"), "does not fit": ("✗", "x", "$error")}
"""Verdict -> its sign, the one without Unicode, and its colour."""


def size(mib: float) -> str:
    return f"{mib / 1024:.1f} GiB" if mib >= 102.4 else f"{mib:.0f} MiB"


def amount(parameters: float) -> str:
    """``3.4 M``, ``1.2 B`` parameters."""
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e8 else f"{parameters / 1e6:.1f} M"


def span(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``: a forecast's time, no more exact than it is."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def card_facts(card: Card) -> list[tuple[str, str]]:
    """``(heading, words)`` of everything on a method's card but strengths and weaknesses."""
    wanted = (
        (card.requires_reference_model, "a reference model"), (card.requires_reward_model, "a reward model"),
        (card.requires_verification, "verification logic"),
    )  # fmt: skip
    needs = [word for needed, word in wanted if needed]
    data = card.data
    least = f"at least {data.minimum}, {recommended_words(card)} recommended" if data.minimum else "none needed"
    undo = f"{'reversible' if card.reversible else 'not reversible'}, {'' if card.composable else 'not '}composable"
    return [
        ("best for", ", ".join(card.best_for)),
        ("needs", ", ".join(needs) or "no other model, no verification"),
        ("data", f"{data.kind}: {least}"),
        ("quality", data.quality),
        ("time", f"{time_words(card)} for a 1B model on a consumer GPU ({card.time.notes})"),
        ("memory", f"{memory_words(card)} for a 1B model in 4 bit ({card.memory.extra})"),
        ("targets", ", ".join(card.targets)),
        ("measures", ", ".join(card.metrics)),
        ("inference", f"overhead: {card.inference_overhead.lower()}; {undo}"),
        ("backends", card.backends),
    ]


def plan_line(plan: Plan) -> str:
    """``SFT/LoRA → DPO``; of a strategy its time and memory too."""
    chain = " → ".join(short_title(cards()[name]) for name in plan.methods)
    strategy = next((one for one in STRATEGIES if one.name == plan.name), None)
    if strategy is None:
        return chain
    return f"{chain}, {strategy.hours[0]}-{strategy.hours[1]} h, {strategy.peak_gb} GB (1B model in 4 bit)"


def chain(methods: Sequence[str]) -> str:
    return " + ".join(short_title(cards()[name]) for name in methods)
