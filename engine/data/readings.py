"""What a dataset may be: every reading of its columns that its first rows allow, each with its confidence.

A reading is a layout (engine/data/formats.py) and which of the file's columns plays which part. Columns are matched by
their exact name, then by the names that people commonly give them. Two readings that are equally good are never chosen
between: the user is asked.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.data import formats
from engine.data.formats import Form, Layout, Question, Reader
from recipes.errors import InputError, Problem, nearest_word, quoted

SYNONYMS: dict[str, tuple[str, ...]] = {
    "prompt": (
        "instruction", "question", "query", "input", "user", "human", "problem", "request", "context", "source", "goal",
        "message", "user_prompt", "input_text", "prompt_text", "task",
    ),
    "completion": (
        "response", "output", "reply", "assistant", "target", "generation", "output_text", "model_output", "gpt", "bot",
        "assistant_response", "ideal",
    ),
    "answer": ("solution", "gold", "ground_truth", "label", "final_answer", "reference", "expected", "correct_answer"),
    "question": ("problem", "query"),
    "instruction": (),
    "output": ("response",),
    "chosen": ("preferred", "accepted", "better", "winner", "win", "good", "chosen_response", "response_chosen", "pos"),
    "rejected": ("dispreferred", "worse", "loser", "lose", "bad", "rejected_response", "response_rejected", "neg"),
    "messages": ("conversation", "dialog", "dialogue", "chat", "turns", "thread"),
    "conversations": (),
    "positive": ("with", "high", "positive_completion", "pos"),
    "negative": ("without", "low", "negative_completion", "neg"),
    "score_chosen": ("chosen_score", "chosen_rating", "rating_chosen", "chosen_reward", "reward_chosen"),
    "score_rejected": ("rejected_score", "rejected_rating", "rating_rejected", "rejected_reward", "reward_rejected"),
    "steps": ("solution_steps", "reasoning_steps", "chain"),
    "required": ("required_steps", "steps_required", "n_steps", "num_steps"),
}  # fmt: skip
"""Our name of a part -> names that datasets give it, most common first."""
OPTIONAL = {"preference": ("score_chosen", "score_rejected"), "question": ("steps", "required")}
"""Form -> parts that a row may have beside those that it needs."""
CONTRAST = {"contrast": (("prompt", "positive", "negative"), "contrast")}
LAYOUTS: dict[str, tuple[tuple[str, ...], str]] = {**CONTRAST, **formats.LAYOUTS}
SYNONYM_WORTH = 0.9
"""Confidence is multiplied by this for every column that is matched by another name than ours."""
LEAST = 0.5
"""Readings that fewer of the first rows fit are not offered."""
CLOSE = 0.15
"""Two readings nearer than this are equally good."""


@dataclass(frozen=True)
class Contrast:
    """Two completions of one prompt that differ in the behaviour a vector is to steer."""

    prompt: list[formats.Message]
    positive: str
    negative: str


AnyForm = Form | Contrast


@dataclass(frozen=True)
class Reading:
    """``columns`` maps our names to the file's; ``confidence`` is the share of the first rows that fit, less what
    guessed names cost."""

    layout: str
    form: str
    columns: dict[str, str]
    confidence: float
    needed: int
    """How many of ``columns``, from the first on, the layout cannot do without."""
    guessed: int = 0
    """How many of those were matched by another name than ours."""

    @property
    def used(self) -> frozenset[str]:
        return frozenset(list(self.columns.values())[: self.needed])

    def renamed(self) -> dict[str, str]:
        """The ``columns:`` that a recipe needs; empty when the names are ours already."""
        return {ours: theirs for ours, theirs in self.columns.items() if ours != theirs}

    def named(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with our names beside the file's."""
        return row | {ours: row[theirs] for ours, theirs in self.columns.items() if theirs in row}

    def read(self, row: dict[str, Any], where: str, line: int) -> AnyForm:
        """A row in its normal form. Raises InputError naming the field."""
        columns = {ours: theirs for ours, theirs in self.columns.items() if theirs in row and ours != theirs}
        if self.layout in CONTRAST:
            row = row | {ours: row.get(theirs) for ours, theirs in columns.items()}
            reader = Reader(row, where, line)
            return Contrast(reader.prompt(), reader.text("positive"), reader.text("negative"))
        answer = self.columns.get("answer")
        if self.form == "question" and answer in row and row[answer] is None:  # a question that has no answer
            name = "question" if "question" in self.columns else "prompt"
            reader = Reader(row | {name: row.get(self.columns[name])}, where, line)
            return Question(reader.prompt(name), None)  # type: ignore[arg-type]
        return formats.convert(row, Layout(self.layout, self.form), where, line, columns or None)


def readings(
    sample: Sequence[dict[str, Any]], forms: Iterable[str] | None = None, given: dict[str, str] | None = None
) -> list[Reading]:
    """Every reading of ``sample``, best first. ``forms``: only those; ``given``: columns that the user named.

    Where the columns are there but no row fits, the one reading that needs most of them, so that its rows' faults can
    be told.
    """
    names = list(dict.fromkeys(str(name) for row in sample for name in row))
    found: list[Reading] = []
    for layout, (needs, form) in LAYOUTS.items():
        if forms is not None and form not in forms:
            continue
        if given and not set(given) <= {*needs, *OPTIONAL.get(form, ()), "input"}:
            continue
        for columns in _assignments(needs, names, given or {}):
            columns |= _optional(form, names, columns, given or {})
            guessed = _guessed(columns, needs, given or {})
            reading = Reading(layout, form, columns, 1.0, len(needs), guessed)
            confidence = _share(reading, sample) * SYNONYM_WORTH**guessed
            found.append(dataclasses.replace(reading, confidence=round(confidence, 3)))
    found.sort(key=lambda reading: (-reading.confidence, -reading.needed))
    kept = _without_poorer(found, sample)
    return [reading for reading in kept if reading.confidence >= LEAST] or kept[:1]


def rivals(found: Sequence[Reading]) -> list[Reading]:
    """The best reading and those that are as good; one entry means that there is no choice to make."""
    best = found[0]
    return [r for r in found if best.confidence - r.confidence < CLOSE and r.guessed <= best.guessed]


def _assignments(needs: Sequence[str], names: Sequence[str], given: dict[str, str]) -> list[dict[str, str]]:
    """Every way to fill the needed parts; more than one only where several columns could be meant."""
    choices: list[list[str]] = []
    for part in needs:
        if part in given:
            choices.append([given[part]])
            continue
        exact = [name for name in names if name == part] or [name for name in names if plain(name) == part]
        choices.append(exact[:1] or [name for name in names if plain(name) in SYNONYMS.get(part, ())])
    ways = itertools.islice(itertools.product(*choices), 64)
    return [dict(zip(needs, way, strict=True)) for way in ways if len(set(way)) == len(way)]


def _optional(form: str, names: Sequence[str], taken: dict[str, str], given: dict[str, str]) -> dict[str, str]:
    parts = OPTIONAL.get(form, ())
    found = {part: given[part] for part in parts if part in given}
    for part in parts:
        if part not in found:
            words = (part, *SYNONYMS.get(part, ()))
            match = next((name for name in names if plain(name) in words and name not in taken.values()), None)
            if match:
                found[part] = match
    return found


def _guessed(columns: dict[str, str], needs: Sequence[str], given: dict[str, str]) -> int:
    return sum(plain(columns[part]) != part and part not in given for part in needs)


def _share(reading: Reading, sample: Sequence[dict[str, Any]]) -> float:
    fits = 0
    for row in sample:
        try:
            reading.read(row, "", 0)
        except InputError:
            continue
        fits += 1
    return fits / max(1, len(sample))


def _without_poorer(found: list[Reading], sample: Sequence[dict[str, Any]]) -> list[Reading]:
    """Leave out a reading whose columns another uses too, with more beside them, or that says the same less well.

    The richer one need not fit: a pair with a missing side is a faulty pair, not a prompt alone.
    """
    kept: list[Reading] = []
    for reading in found:
        richer = any(other.used > reading.used and _there(other, sample) for other in found)
        same = any(other.used == reading.used and _same(other, reading) for other in kept)
        if not richer and not same:
            kept.append(reading)
    return kept


def _there(reading: Reading, sample: Sequence[dict[str, Any]]) -> bool:
    """Whether the reading's columns are in the first row, or in most."""
    have = [reading.used <= set(map(str, row)) for row in sample]
    return bool(have) and (have[0] or sum(have) > len(have) / 2)


def _same(one: Reading, other: Reading) -> bool:
    """Of two readings of the same columns the first (better) stands, unless they make different things of them."""
    return one.form == other.form or {one.form, other.form} == {"question", "conversation"}


def plain(name: str) -> str:
    """``Chosen Response`` -> ``chosen_response``."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def check_given(given: dict[str, str], names: Sequence[str], where: str) -> None:
    """Raises InputError for a part that is none and for a column that the file has not."""
    parts = sorted({part for needs, form in LAYOUTS.values() for part in (*needs, *OPTIONAL.get(form, ()))} | {"input"})
    problems = []
    for ours, theirs in given.items():
        if ours not in parts:
            problems.append(Problem("--columns", None, ours, f"`{ours}`", quoted(parts), nearest_word(ours, parts)))
        elif theirs not in names:
            near = nearest_word(theirs, names)
            problems.append(Problem(where, 1, theirs, f"no column `{theirs}`", quoted(sorted(names)), near))
    if problems:
        raise InputError(problems)
