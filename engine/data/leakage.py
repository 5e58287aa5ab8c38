"""Held-out rows, and how far they are among the rows that are trained on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from engine.data.choosing import choose
from engine.data.duplicates import Near, shingles
from engine.data.enough import few_held_out
from engine.data.formats import Question
from engine.data.readings import AnyForm
from engine.data.rows import no_rows, scan_rows
from engine.data.turns import key_of, prompt_key, turns_of
from recipes.errors import InputError, Problem

LOOKED_AT = 200
"""First rows that the form is told from."""


@dataclass
class Leakage:
    """How far a held-out file is in the training file."""

    heldout: int
    answerable: int = 0
    """Held-out rows but for the questions without an answer."""
    rows: int = 0
    prompts: int = 0
    near: int = 0
    compared: int = 0
    first: int | None = None


class Heldout:
    """The held-out rows, small enough to be kept as digests, and what of them the training rows repeat."""

    def __init__(self) -> None:
        self.rows: dict[bytes, int] = {}
        self.prompts: set[bytes] = set()
        self.leaked_rows: set[bytes] = set()
        self.leaked_prompts: set[bytes] = set()
        self.near = Near()
        self.leakage = Leakage(0)

    def add(self, form: AnyForm, line: int) -> None:
        self.leakage.heldout += 1
        self.leakage.answerable += not (isinstance(form, Question) and form.answer is None)
        self.rows.setdefault(_digest(key_of(form)), line)
        self.prompts.add(_digest(prompt_key(form)))
        self.near.add("\n".join(turn["content"] for turn in turns_of(form)), line)

    def compare(self, form: AnyForm, line: int) -> None:
        leak = self.leakage
        row, prompt = _digest(key_of(form)), _digest(prompt_key(form))
        if row in self.rows:
            self.leaked_rows.add(row)
            leak.first = min(leak.first or self.rows[row], self.rows[row])
        elif leak.compared < self.near.compared * 10 + 20_000:
            leak.compared += 1
            sketch = shingles("\n".join(turn["content"] for turn in turns_of(form)))
            leak.near += len(sketch) > 5 and self.near.like(sketch) is not None
        if prompt in self.prompts:
            self.leaked_prompts.add(prompt)
        leak.rows, leak.prompts = len(self.leaked_rows), len(self.leaked_prompts)


def read_heldout(path: Path, forms: tuple[str, ...] | None, given: dict[str, str] | None) -> Heldout:
    """Raises InputError for anything that is wrong with the held-out file."""
    kept, sample = Heldout(), []
    rows = scan_rows(path)
    for file, line, row in rows:
        if isinstance(row, Problem):
            raise InputError([row])
        sample.append((file, line, row))
        if len(sample) >= LOOKED_AT:
            break
    if not sample:
        raise InputError([no_rows(path)])
    reading = choose(sample, forms, given, [])[0]
    for file, line, row in sample:
        kept.add(reading.read(row, file, line), line)
    for file, line, item in rows:
        if isinstance(item, Problem):
            raise InputError([item])
        kept.add(reading.read(item, file, line), line)
    return kept


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def judge_leakage(leak: Leakage, path: Path, heldout: Path) -> tuple[list[Problem], list[str]]:
    """Problems and warnings."""
    problems, warnings = [], []
    if leak.rows:
        said = f"{leak.rows} of {leak.heldout} held-out rows that are in {path} too"
        problems.append(
            Problem(str(heldout), leak.first, None, said, "rows that are not trained on: take them out of either file")
        )
    if leak.prompts > leak.rows:
        warnings.append(f"{leak.prompts - leak.rows} more held-out prompts are trained on with other answers")
    if leak.near:
        warnings.append(f"{leak.near} of {leak.compared} training rows are nearly a held-out row")
    return problems, warnings + few_held_out(leak.heldout)
