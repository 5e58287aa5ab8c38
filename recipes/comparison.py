"""The method comparison's tables and chart, made from the cards: one row or column a method, in the source's order."""

from __future__ import annotations

from dataclasses import dataclass

from recipes.methods import cards
from recipes.methods.card import Card

ORDER = ("sft", "dpo", "orpo", "grpo", "cpo", "rlvr", "abliteration", "steering", "calibration", "anti_hallucination")
"""The source's eight, then the two that only its strategies name."""


@dataclass(frozen=True)
class Table:
    """``rows`` begin with the method's short title; ``keys`` are the methods' names, row by row."""

    title: str
    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    keys: tuple[str, ...]


def short_title(card: Card) -> str:
    """``DPO`` of ``DPO (Direct Preference Optimization)``."""
    return card.title.partition(" (")[0]


def all_cards() -> list[Card]:
    """In the source's order; a card that it does not know comes last."""
    known = cards()
    return [known[name] for name in (*ORDER, *sorted(set(known) - set(ORDER))) if name in known]


def features() -> Table:
    return _table(
        "Feature comparison",
        (
            "Method", "Reference model", "Reward model", "Verification", "Training time", "Inference overhead",
            "Data requirements", "Reversible", "Composable",
        ),
        lambda card: (
            _yes(card.requires_reference_model), _yes(card.requires_reward_model), _yes(card.requires_verification),
            card.time.word, card.inference_overhead, card.data.need, _yes(card.reversible), _yes(card.composable),
        ),
    )  # fmt: skip


def times() -> Table:
    heading = ("Method", "Training time (1B model, consumer GPU)", "Notes")
    return _table("Training time estimates", heading, lambda card: (time_words(card), card.time.notes))


def data_requirements() -> Table:
    return _table(
        "Data requirements",
        ("Method", "Minimum examples", "Recommended", "Quality priority"),
        lambda card: (str(card.data.minimum), recommended_words(card), card.data.quality),
    )


def memory_requirements() -> Table:
    return _table(
        "Memory requirements",
        ("Method", "Reference model", "Extra memory", "Total (1B model, 4-bit)"),
        lambda card: (_yes(card.memory.reference_model), card.memory.extra, memory_words(card)),
    )


def quality_metrics() -> Table:
    return _table(
        "Quality metrics",
        ("Method", "Key metrics", "Target thresholds"),
        lambda card: (", ".join(card.metrics), ", ".join(card.targets)),
    )


def tables() -> list[Table]:
    return [features(), times(), data_requirements(), memory_requirements(), quality_metrics()]


def time_words(card: Card) -> str:
    """``30-60 min`` up to an hour, ``2-4 hours`` above."""
    low, high = card.time.low_hours, card.time.high_hours
    if high <= 1:
        return f"{round(low * 60)}-{round(high * 60)} min"
    return f"{low:g}-{high:g} hours"


def memory_words(card: Card) -> str:
    return f"~{card.memory.total_gb_1b_4bit:g} GB"


def recommended_words(card: Card) -> str:
    return f"{card.data.recommended}+" if card.data.recommended else "0"


def _table(title: str, heading: tuple[str, ...], cells: object) -> Table:
    known = all_cards()
    rows = tuple((short_title(card), *cells(card)) for card in known)  # type: ignore[operator]
    return Table(title, heading, rows, tuple(card.name for card in known))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


# ---- the complexity-capability chart -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where a method's label stands in the source's chart: rows from the top, columns from the axis."""

    method: str
    row: int
    column: int


CHART = (
    Place("rlvr", 1, 2),
    Place("grpo", 3, 9),
    Place("dpo", 5, 6),
    Place("cpo", 5, 13),
    Place("orpo", 7, 6),
    Place("sft", 9, 2),
    Place("abliteration", 11, 2),
    Place("steering", 11, 18),
)
"""The labels' places; what stands higher can do more, what stands further right is harder to get right."""
LINKS = ((2, 6), (3, 6), (4, 10), (6, 10), (8, 10))
"""Rows and columns of the strokes that join one label to the next."""


def chart_lines(mark: str = "●", ascii_only: bool = False) -> list[str]:
    """The chart drawn with its axes. ``mark`` follows each label; the same places whatever it is."""
    up, right, corner = ("|", "-", "+") if ascii_only else ("│", "─", "│")
    mark = "*" if ascii_only and mark == "●" else mark
    known = cards()
    lines = ["High Capability"]
    for row in range(max(place.row for place in CHART) + 2):
        signs = [(column, up) for at, column in LINKS if at == row]
        signs += [(place.column, f"{short_title(known[place.method])} {mark}") for place in CHART if place.row == row]
        text = ""
        for column, sign in sorted(signs):
            text = f"{text:<{column}}{sign}"
        lines.append(f"    {up}{text}".rstrip())
    lines.append(f"Low {corner}{right * 40}{'>' if ascii_only else '→'} High Complexity")
    return lines
