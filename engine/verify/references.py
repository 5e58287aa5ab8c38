"""What a row's answer says to a verifier of steps: the answer, how many steps a solution needs, and a worked one.

It travels as one text, the ``answer`` of a row: plain, or JSON. What a row has in columns of its own is put into it once,
when the data are prepared (engine/data/worked.py), so that both backends, a resume and the gates read the same.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

OWN = "as_given"
"""In the JSON of a reference that was made of columns: the answer as the row has it."""


@dataclass(frozen=True)
class Reference:
    """The answer of a row; how many steps a solution needs and the steps of one, where the row says so."""

    answer: str
    required: int | None = None
    steps: tuple[str, ...] = ()


def reference(answer: str) -> Reference:
    """From a row's answer: plain text, or JSON {"answer": …, "required": n, "steps": […]}."""
    found = _object(answer)
    if found is None:
        return Reference(answer)
    needed, steps = found.get("required"), found.get("steps")
    worked = tuple(steps) if isinstance(steps, list) and all(isinstance(step, str) for step in steps) else ()
    return Reference(str(found["answer"]), needed if type(needed) is int and needed > 0 else None, worked)


def own_answer(answer: str) -> str:
    """The row's own answer, without what its columns added to the reference."""
    found = _object(answer)
    own = None if found is None else found.get(OWN)
    return own if isinstance(own, str) else answer


def joined(answer: str, required: int, steps: Sequence[str]) -> str:
    """The reference of a row with this answer (plain or JSON) that needs so many steps."""
    kept = _object(answer) or {"answer": answer}
    made = {**kept, "required": required, **({"steps": list(steps)} if steps else {}), OWN: answer}
    return json.dumps(made, ensure_ascii=False)


def _object(answer: str) -> dict[str, object] | None:
    """The JSON object with an ``answer`` that the text is; None for any other text."""
    if not answer.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and "answer" in found else None
