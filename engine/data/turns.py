"""A row of any form as the turns of a conversation: what is counted, compared, shown and tokenized of it."""

from __future__ import annotations

import json
from typing import Any

from engine.data.formats import Conversation, Message, Preference, Prompt, Question
from engine.data.readings import AnyForm, Contrast

LONGEST_KEPT = 2**16
"""Characters of a turn that are kept for tokenizing; longer ones are cut there."""


def turns_of(form: AnyForm) -> list[Message]:
    """All texts of a row as turns; of a pair both sides."""
    if isinstance(form, Conversation):
        return form.messages
    answers = {
        Question: lambda row: [row.answer] if row.answer is not None else [],
        Preference: lambda row: [row.chosen, row.rejected],
        Contrast: lambda row: [row.positive, row.negative],
        Prompt: lambda row: [],
    }[type(form)](form)
    return [*form.prompt, *({"role": "assistant", "content": text} for text in answers)]


def longest_side(form: AnyForm) -> list[Message]:
    """The conversation whose length counts against the limit: of a pair the longer side."""
    turns = turns_of(form)
    if isinstance(form, Preference | Contrast):
        return [*form.prompt, max(turns[-2:], key=lambda turn: len(turn["content"]))]
    return turns


def cut(turn: Message) -> Message:
    """A turn that is kept for tokenizing: far over any limit it makes no difference how far."""
    return turn if len(turn["content"]) <= LONGEST_KEPT else {**turn, "content": turn["content"][:LONGEST_KEPT]}


def example_of(form: AnyForm) -> list[dict[str, Any]]:
    """A row as it is trained on: ``trained`` marks the turns that the loss is taken over."""
    trained = not isinstance(form, Prompt | Question)
    sides = {Preference: ("chosen", "rejected"), Contrast: ("positive", "negative")}.get(type(form))
    turns = turns_of(form)
    shown = [
        {"role": turn["role"], "text": turn["content"], "trained": trained and turn["role"] == "assistant"}
        for turn in turns
    ]
    if isinstance(form, Question):
        for turn in shown[len(form.prompt) :]:
            turn["trained"] = True
    if sides:
        for turn, side in zip(shown[-2:], sides, strict=True):
            turn["role"] = side
    return shown


def key_of(form: AnyForm) -> str:
    """What makes two rows the same: all of their texts, but for spaces and the last full stop."""
    return json.dumps([turn["content"].strip().rstrip(".") for turn in turns_of(form)])


def prompt_key(form: AnyForm) -> str:
    if isinstance(form, Conversation):
        return json.dumps([turn["content"] for turn in form.messages if turn["role"] != "assistant"])
    return json.dumps([turn["content"] for turn in form.prompt])
