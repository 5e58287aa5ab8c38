"""How many rows a recipe's data have and how long they are: all that a stage's time needs of them.

Read once per content of a file; a long one by its beginning.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from recipes.errors import InputError

LOOKED_AT = 2000
"""Rows of a file that are read; the rest are counted by the bytes that these take."""
FORMS = ("conversation", "preference", "question", "contrast", "prompt")


@dataclass(frozen=True)
class Rows:
    """``prompt`` and ``answer`` are mean characters of a row; an answer of a pair is the mean of both."""

    count: int
    prompt: float
    answer: float
    whole: tuple[int, ...] = ()
    """Characters of each row looked at, ascending; of a pair its longer side with the prompt."""
    questions: bool = False
    """Every row has a written answer that an exact match can be asked of."""

    def longest_of(self, rows: int) -> float:
        """Mean length in characters of the longest of so many random rows: what a batch is padded to."""
        if not self.whole:
            return self.prompt + self.answer
        place = min(len(self.whole) - 1, int(len(self.whole) * rows / (rows + 1)))
        return float(self.whole[place])

    @property
    def mean(self) -> float:
        return sum(self.whole) / len(self.whole) if self.whole else self.prompt + self.answer


NOTHING = Rows(0, 0.0, 0.0)
UNREAD = Rows(1000, 400.0, 800.0)
"""Where a file is not there yet, or in no form that we know."""


def survey(path: Path | None, columns: dict[str, str] | None = None) -> Rows:
    """The rows of a file or folder."""
    if path is None:
        return UNREAD
    try:
        files = [path] if path.is_file() else sorted(one for one in path.rglob("*") if one.is_file())
        stats = [os.stat(one) for one in files]
    except OSError:
        return UNREAD
    changed, size = max((one.st_mtime_ns for one in stats), default=0), sum(one.st_size for one in stats)
    return _survey(str(path), changed, size, tuple(sorted((columns or {}).items())))


@lru_cache(maxsize=64)
def _survey(path: str, _changed: int, size: int, columns: tuple[tuple[str, str], ...]) -> Rows:
    from engine.data.formats import convert, detect
    from engine.data.rows import read_rows

    lengths: list[tuple[int, int]] = []
    answered, characters = True, 0
    try:
        layout = None
        for file, line, row in itertools.islice(read_rows(Path(path)), LOOKED_AT):
            layout = layout or detect(row, FORMS, file, line, dict(columns) or None)
            prompt, answers = _lengths(convert(row, layout, file, line, dict(columns) or None))
            characters += sum(len(name) + len(str(value)) + 8 for name, value in row.items())
            answered = answered and answers is not None and layout.form == "question"
            lengths.append((prompt, max(answers or [0])))
    except (InputError, OSError, ValueError):
        if not lengths:
            return UNREAD
    if not lengths:
        return NOTHING
    count = len(lengths)
    if count == LOOKED_AT and characters:
        count = max(count, round(size * count / characters))
    asked = sum(one for one, _ in lengths) / len(lengths)
    answer = sum(one for _, one in lengths) / len(lengths)
    return Rows(count, asked, answer, tuple(sorted(sum(both) for both in lengths)), answered)


def _lengths(form: Any) -> tuple[int, list[int] | None]:
    """Characters of the prompt and of each answer."""
    kind = type(form).__name__
    if kind == "Conversation":
        last = form.messages[-1]["content"]
        return sum(len(one["content"]) for one in form.messages) - len(last), [len(last)]
    prompt = sum(len(one["content"]) for one in form.prompt)
    if kind == "Preference":
        return prompt, [len(form.chosen), len(form.rejected)]
    if kind == "Contrast":
        return prompt, [len(form.positive), len(form.negative)]
    if kind == "Question":
        return prompt, None if form.answer is None else [len(form.answer)]
    return prompt, None
