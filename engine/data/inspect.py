"""Look a dataset over before anything is trained on it: what it is, what is wrong with it, whom it can serve.

One pass over the rows, in bounded memory. Faults of single rows are collected with their places; a file that cannot be
understood as a whole raises InputError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.data.choosing import Ambiguous, choose, told_better
from engine.data.endings import judge_endings, look_at_endings
from engine.data.enough import few_for_ece
from engine.data.formats import Question
from engine.data.inspection import Inspection
from engine.data.leakage import LOOKED_AT, judge_leakage, read_heldout
from engine.data.lengths import TOKENIZED, Sample, token_lengths
from engine.data.readings import AnyForm
from engine.data.rows import data_files, no_rows, scan_rows
from engine.data.served import Amounts, forms_of, served
from engine.data.tally import Tally, count, judge_lengths, sum_up
from engine.data.verifiable import TRIED, judge_verifiable, try_verifier
from engine.data.worked import KIND as WITH_STEPS
from engine.data.worked import STEP_VERIFIERS, with_steps
from recipes.errors import InputError, Problem
from recipes.methods import cards, stage_types

__all__ = ["Ambiguous", "Inspection", "inspect"]
LOOKED_AT_CHARACTERS = 32 * 2**20
MOST_COLUMNS = 1000
"""Names of columns that are counted; a file whose rows all have other names would fill the memory."""
DEFAULT_LIMIT = 1024

Told = Callable[[int, int, int], None]
"""Bytes read, bytes in all, rows."""


def inspect(
    path: Path,
    method: str | None = None,
    given: dict[str, str] | None = None,
    heldout: Path | None = None,
    model: str | None = None,
    limit: int | None = None,
    told: Told | None = None,
    verifier: dict[str, Any] | None = None,
) -> Inspection:
    """Look over the data under ``path``.

    ``method`` narrows the readings to what it can use; ``given`` says which column plays which part; ``model`` is
    ``lab`` or a model's directory, for lengths in tokens and the ends of replies; ``limit``: tokens after which a row is
    cut off; ``verifier``: a recipe's ``verifier:``, tried on the answers.
    Raises InputError when the data cannot be understood, or in two ways equally well.
    """
    files = data_files(path)
    size = sum(file.stat().st_size for file in files)
    found = Inspection(str(path), len(files), size)
    tally = Tally(texts=Sample(TOKENIZED) if model else None, questions=Sample(TRIED) if verifier else None)
    tally.stepwise = verifier is not None and verifier["kind"] in STEP_VERIFIERS
    strict = method is not None and cards()[method].data.kind == WITH_STEPS
    limit = limit or _limit(method)
    forms = forms_of(cards()[method]) if method else None

    def passed(done: int) -> None:
        if told:
            told(done, size, found.rows)

    kept = read_heldout(heldout, forms, given) if heldout else None
    sample: list[tuple[str, int, dict[str, Any]]] = []
    rows, characters = scan_rows(path, passed), 0
    for file, line, row in rows:
        if isinstance(row, Problem):
            found.fault(row)
        else:
            sample.append((file, line, row))
            characters += len(str(row))
            if len(sample) >= LOOKED_AT or characters > LOOKED_AT_CHARACTERS:
                break
    if not sample:
        raise InputError(found.problems or [no_rows(path)])
    found.readings = choose(sample, forms, given, found.problems)
    found.reading = reading = found.readings[0]

    def everything() -> Iterator[tuple[str, int, dict[str, Any] | Problem]]:
        yield from sample
        yield from rows

    for file, line, row in everything():
        if isinstance(row, Problem):
            found.fault(row)
            continue
        if len(tally.columns) < MOST_COLUMNS:
            tally.columns.update(map(str, row))
        try:
            form = reading.read(row, file, line)
            asked = _asked(form, reading.named(row), file, line, verifier or {}, strict)
        except InputError as error:
            found.fault(told_better(error.problems[0], reading, row, file, line))
            continue
        found.rows += 1
        count(found, tally, form, line, asked)
        if kept is not None:
            kept.compare(form, line)
    found.problems.sort(key=lambda problem: (problem.where, problem.line or 0))
    sum_up(found, tally, limit)
    if kept is not None and heldout is not None:
        found.leakage = kept.leakage
        problems, warnings = judge_leakage(kept.leakage, path, heldout)
        found.problems += problems
        found.warnings += warnings
        if method:
            gates = [name for name, gate in cards()[method].gates.items() if gate.default]
            found.warnings += few_for_ece(method, gates, kept.leakage.heldout, kept.leakage.answerable)
    if model and tally.texts and tally.texts.items:
        found.tokens = token_lengths(model, tally.texts.items, tally.texts.seen, limit)
        found.endings = look_at_endings(model, tally.texts.items)
        found.warnings += judge_endings(found.endings)
    judge_lengths(found)
    if verifier and tally.questions and tally.questions.items:
        found.verifiability = try_verifier(verifier, tally.questions.items)
        problems, warnings = judge_verifiable(found.verifiability, str(path))
        found.problems += problems
        found.warnings += warnings
    answered = found.rows - found.duplicates - found.unanswerable
    # A step verifier of the user's own may say itself how many steps are needed: it is asked where it is tried.
    known = answered if verifier and verifier["kind"] == "custom-steps" else found.with_steps
    amounts = Amounts(found.rows - found.duplicates - found.same_sides, answered, known, found.gap)
    found.serves = served(reading.form, amounts)
    return found


def _asked(
    form: AnyForm, row: dict[str, Any], file: str, line: int, verifier: dict[str, Any], strict: bool
) -> Question | None:
    """A question with an answer as a method with steps gets it. Raises InputError for columns of steps that such a method
    cannot read, where ``strict``; for other methods they are none."""
    if not isinstance(form, Question) or form.answer is None:
        return None
    try:
        return with_steps(form, row, file, line, bool(verifier.get("algebra")))
    except InputError:
        if strict:
            raise
        return form


def _limit(method: str | None) -> int:
    """The ``max_length`` that a stage of the method has by default."""
    stage = stage_types().get(method or "")
    fields = getattr(stage, "model_fields", {})
    return int(fields["max_length"].default) if "max_length" in fields else DEFAULT_LIMIT
