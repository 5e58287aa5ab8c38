"""How many steps a solution needs, from the columns `steps` and `required` of a row into the reference of its answer.

Without it a chain of steps is measured against itself, and one true step alone has a step correctness of 1.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from typing import Any

from engine.data.formats import Question
from engine.verify.references import joined, reference
from engine.verify.segments import segments
from engine.verify.steps import SEPARATORS, needed_steps, written_steps
from recipes.errors import InputError, Problem

KIND = "prompts with answers and steps"
"""The kind of data on a method's card whose rows have steps."""
STEP_VERIFIERS = ("steps", "custom-steps")
"""Kinds of verifiers that see steps."""
PARTS = ("steps", "required")
"""Columns that say something of the steps."""
NO_STEP = re.compile(r"\s*(?:\d+[.):]?\s*$|(?:the\s+)?(?:final\s+)?answer\b|####)", re.IGNORECASE)
"""What a text has between its steps: their numbers (``1. 12 - 3 = 9`` is cut after the full stop), and the answer."""


def with_steps(question: Question, row: Mapping[str, Any], where: str, line: int, algebra: bool = False) -> Question:
    """The question with what its row says of steps in the reference of its answer; as it is where the row says nothing.

    ``row`` has our names for its columns. ``required`` stands before the number of the worked ``steps``; ``algebra``: an
    equation with unknowns is a step. Raises InputError naming the column that is neither empty nor readable.
    """
    if question.answer is None:
        return question
    said = reference(question.answer)
    steps = worked_steps(row.get("steps"), where, line) or said.steps
    needed = required_steps(row.get("required"), where, line) or said.required or counted(steps, algebra)
    if not needed or (needed, steps) == (said.required, said.steps):
        return question
    return dataclasses.replace(question, answer=joined(question.answer, needed, steps))


def worked_steps(value: Any, where: str, line: int) -> tuple[str, ...]:
    """The steps of a worked solution: a list of texts, JSON of one (as tables have it), or text with a step a line or
    sentence. Raises InputError for anything else; none where there is nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ()
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except ValueError:
            pass
    if isinstance(value, str):
        value = [value[start:end] for start, end in segments(SEPARATORS["auto"], value)]
        value = [text for text in value if not NO_STEP.match(text)]
    others = [step for step in value if not isinstance(step, str)] if isinstance(value, list) else [value]
    if others:
        found = f"a {type(others[0]).__name__}{' in the list' if isinstance(value, list) else ''}"
        accepted = "a list of texts or a text, the steps of a right solution; their number alone belongs in `required`"
        raise InputError([Problem(where, line, "steps", found, accepted)])
    return tuple(step.strip() for step in value if step.strip())


def required_steps(value: Any, where: str, line: int) -> int | None:
    """A whole number from 1 on, as text or float too (tables have those). Raises InputError for anything else; None
    where there is nothing."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    try:
        number = None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or not number.is_integer() or number < 1:
        accepted = "how many steps a solution needs: a whole number from 1 on, or nothing"
        raise InputError([Problem(where, line, "required", f"`{str(value)[:40]}`", accepted)])
    return int(number)


def counted(steps: tuple[str, ...], algebra: bool = False) -> int:
    """How many steps the built-in verifier sees in them: equations, one text may have several. The texts themselves where
    there is no equation."""
    equations = sum(
        bool(step.equation)
        for text in steps
        for step in written_steps(text, segments(SEPARATORS["auto"], text), algebra)
    )
    return equations or len(steps)


def says_steps(question: Question) -> bool:
    """Whether it is known how many steps a solution needs."""
    prompt = question.prompt[-1]["content"] if question.prompt else ""
    return needed_steps(prompt, question.answer or "") is not None


def unknown_words(unknown: int, rows: int) -> str:
    """What a run, ``check`` and ``data`` say alike of rows whose number of steps is not known."""
    return (
        f"{unknown} of {rows} rows do not say how many steps a solution needs (no `steps`, no `required`): there step "
        "correctness is measured against the steps that are written, so that one true step alone counts as all of them. "
        "Add `steps`, the worked steps, or `required`, their number; in a recipe `columns: {steps: yours}` names them"
    )
