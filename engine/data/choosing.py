"""The one reading of a dataset, or the question which is meant; a row's fault with what is probably behind it."""

from __future__ import annotations

from typing import Any

from engine.data.formats import detect
from engine.data.readings import Reading, check_given, readings, rivals
from engine.data.served import forms_of
from engine.data.worked import PARTS
from recipes.errors import InputError, Problem, quoted
from recipes.methods import cards

Rows = list[tuple[str, int, dict[str, Any]]]
"""File, line and row."""


class Ambiguous(InputError):
    """Data that can be read in several ways equally well, or in none: ``readings`` are those ways, ``columns`` what the
    rows have."""

    def __init__(self, problems: list[Problem], readings: list[Reading], columns: list[str]) -> None:
        super().__init__(problems)
        self.readings, self.columns = readings, columns


def choose(
    sample: Rows, forms: tuple[str, ...] | None, given: dict[str, str] | None, problems: list[Problem]
) -> list[Reading]:
    """All readings of the first rows, the one that is meant first. Raises Ambiguous when there is none (with the
    ``problems`` of rows before them), or more than one that is as good."""
    rows = [row for _, _, row in sample]
    file, line, first = sample[0]
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    if given:
        check_given(given, names, file)
    all_readings = readings(rows, forms, given)
    if not all_readings:
        raise Ambiguous([*problems, _no_reading(first, names, forms, file, line)], [], names)
    equal = rivals(all_readings)
    if len(equal) > 1 and equal[0].confidence > 0:
        shown = " or ".join(f"{item.layout} ({quoted(sorted(item.used))})" for item in equal[:3])
        said = {item.form for item in equal}
        methods = [name for name, card in cards().items() if set(forms_of(card)) & said]
        ways = [
            "--columns " + ",".join(f"{ours}={theirs}" for ours, theirs in item.columns.items()) for item in equal[:3]
        ]
        accepted = "a word on which is meant: " + ", or ".join(ways)
        if len(said) > 1 and forms is None:
            accepted += f", or --method {' / '.join(methods)}"
        said_so = f"two readings that are equally good: {shown}"
        raise Ambiguous([Problem(file, line, None, said_so, accepted)], equal, names)
    return all_readings


def _no_reading(row: dict[str, Any], names: list[str], forms: tuple[str, ...] | None, file: str, line: int) -> Problem:
    if names == ["text"]:
        accepted = "rows that say what is asked and what is answered, such as `prompt` and `completion`, or `messages`"
        return Problem(file, line, "text", "plain text, which says neither", accepted)
    try:
        detect(
            {name: row.get(name) for name in names},
            forms or ("conversation", "question", "preference"),
            file,
            line,
            None,
        )
    except InputError as error:
        problem = error.problems[0]
        accepted = problem.accepted.split(", or `columns:`")[0] + ", or --columns prompt=YOUR_COLUMN,…"
        return Problem(file, line, None, problem.found, accepted, problem.nearest)
    return Problem(file, line, None, f"the columns {quoted(names)}", "columns that make a row of one kind")


def told_better(problem: Problem, reading: Reading, row: dict[str, Any], file: str, line: int) -> Problem:
    """A row's fault with what is probably behind it."""
    lacking = [name for name in reading.used if name not in row]
    if lacking:
        found = f"a row without it; it has {quoted(row) or 'no columns'}"
        accepted = f"{quoted(reading.columns.values())} in every row, as in the first: one kind of row a file"
        return Problem(file, line, lacking[0], found, accepted)
    if problem.field in PARTS:
        name = reading.columns.get(problem.field, problem.field)
        return Problem(file, line, name, problem.found, problem.accepted)
    name = reading.columns.get(problem.field or "", problem.field or "").split("[")[0]
    value = row.get(name)
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{") and "list of messages" in problem.accepted:
        return Problem(
            file,
            line,
            name,
            "a text that holds JSON",
            "the list itself: decode it with json.loads before writing the row",
        )
    if isinstance(value, list) and value and isinstance(value[0], str):
        return Problem(file, line, name, "a list of texts", "text, or a list of messages with `role` and `content`")
    if isinstance(value, dict):
        return Problem(
            file, line, name, f"an object with {quoted(value)}", "text, or a list of messages with `role` and `content`"
        )
    return Problem(
        file,
        line,
        reading.columns.get(problem.field or "", problem.field),
        problem.found,
        problem.accepted,
        problem.nearest,
    )
