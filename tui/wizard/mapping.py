"""Which column plays which part: what the inspection took, what else it could be, and what a recipe has to say of it."""

from __future__ import annotations

from typing import Any

from engine.data.formats import detect
from engine.data.served import forms_of
from recipes.errors import InputError
from recipes.methods import cards


def for_recipe(reading: dict[str, Any], columns: list[str], method: str | None) -> dict[str, str]:
    """The ``columns:`` with which a run reads the rows as the inspection did; empty where it does so by itself."""
    renamed = {ours: theirs for ours, theirs in reading["columns"].items() if ours != theirs}
    if method is None:
        return renamed
    wanted = forms_of(cards()[method])
    tried = [renamed]
    if reading["form"] == "question" and "conversation" in wanted:
        asked = reading["columns"].get("prompt") or reading["columns"].get("question")
        tried.append({"prompt": asked, "completion": reading["columns"]["answer"]})
    needed = set(reading["columns"].values())
    for mapping in tried:
        try:
            layout = detect(dict.fromkeys([*columns, *needed], ""), wanted, "", 1, mapping or None)
        except InputError:
            continue
        if layout.name == reading["layout"] or (layout.form == "conversation" and mapping is not renamed):
            return mapping
    return renamed


NEEDED = {
    "preference": ("prompt", "chosen", "rejected"), "conversation": ("prompt", "completion"), "question": ("prompt", "answer"),
    "contrast": ("prompt", "positive", "negative"),
}  # fmt: skip
"""Parts of the plainest layout of each form, for columns whose names say nothing."""


def parts_of(method: str | None) -> tuple[str, ...]:
    """The parts to name by hand; without a method there is nothing that they would be for."""
    return NEEDED[forms_of(cards()[method])[0]] if method and forms_of(cards()[method]) else ()


def given_by_hand(given: dict[str, str], part: str, columns: list[str], by: int) -> dict[str, str]:
    """Another column for ``part``; a column plays one part only, the one named last."""
    now = given.get(part)
    place = columns.index(now) + by if now in columns else (0 if by > 0 else -1)
    new = columns[place % len(columns)]
    return {key: column for key, column in given.items() if column != new and key != part} | {part: new}


def cycled(reading: dict[str, Any], part: str, columns: list[str], by: int) -> dict[str, str]:
    """The reading's columns with another one for ``part``; two parts never share one: they swap."""
    chosen = dict(reading["columns"])
    if chosen[part] not in columns:
        return chosen
    new = columns[(columns.index(chosen[part]) + by) % len(columns)]
    for other, column in chosen.items():
        if column == new and other != part:
            chosen[other] = chosen[part]
    return chosen | {part: new}
