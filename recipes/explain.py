"""From pydantic's errors to ours: the line in the file, the field, what was found, what is accepted, the nearest word."""

from __future__ import annotations

import re
from typing import Any

from pydantic import BaseModel, ValidationError

from recipes.errors import Problem, nearest_word, quoted

KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "`true` or `false`",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "finite_number": "a finite number",
    "missing": "a value: the field is required",
}
EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")
UNION_TAGS = ("Adapter", "Gate", "list[str]", "str", "literal['all-linear','attention']")


def explain(
    error: ValidationError,
    model: type[BaseModel],
    where: str,
    lines: dict[tuple[str | int, ...], int],
    prefix: tuple[str | int, ...],
) -> list[Problem]:
    """One Problem per field that is wrong; of a union's several complaints about one field, the first stays."""
    problems: dict[tuple[str | int, ...], Problem] = {}
    for item in error.errors(include_url=False):
        path = tuple(part for part in item["loc"] if part not in UNION_TAGS)
        full = (*prefix, *path)
        field = ".".join(map(str, full))
        if item["type"] == "extra_forbidden":
            fields = sorted(_model_at(model, path[:-1]).model_fields)
            problem = Problem(
                where, _line(lines, full), field, f"an unknown field `{path[-1]}`", quoted(fields),
                nearest_word(str(path[-1]), fields),
            )  # fmt: skip
        elif item["type"] == "missing":
            problem = Problem(where, _line(lines, full[:-1]), field, "nothing", KINDS["missing"])
        else:
            problem = _wrong_value(item, where, _line(lines, full), field)
        problems.setdefault(full, problem)
    meant = {(path[:-1], problem.nearest) for path, problem in problems.items() if "unknown field" in problem.found}
    # A misspelt required field is one mistake, not two.
    return [
        problem
        for path, problem in problems.items()
        if not (problem.found == "nothing" and path and (path[:-1], path[-1]) in meant)
    ]


def _wrong_value(item: Any, where: str, line: int | None, field: str) -> Problem:
    found, context = item["input"], item.get("ctx", {})
    shown = (
        f"`{found}`" if isinstance(found, str | int | float | bool) or found is None else f"a {type(found).__name__}"
    )
    if isinstance(found, str) and item["type"] in ("int_type", "float_type"):
        shown = f"the text `{found}`"
        if EXPONENT.fullmatch(found.strip()):
            shown += " (YAML reads 1e-4 as text: write 1.0e-4 or 0.0001)"
    if item["type"] == "literal_error":
        words = [word.strip("' ") for word in str(context["expected"]).replace(" or ", ", ").split(",")]
        return Problem(where, line, field, shown, quoted(words), nearest_word(str(found), words))
    bounds = {"greater_than": "more than {gt}", "greater_than_equal": "at least {ge}", "less_than": "less than {lt}"}
    bounds |= {"less_than_equal": "at most {le}", "too_short": "at least {min_length} of them"}
    bounds |= {"too_long": "at most {max_length} of them", "string_too_short": "text that is not empty"}
    bounds |= {
        "string_pattern_mismatch": "lower-case letters, digits and hyphens, at most 64, starting with one of the first two"
    }
    accepted = bounds.get(item["type"], KINDS.get(item["type"], str(item["msg"]))).format(**context)
    return Problem(where, line, field, shown, accepted)


def _line(lines: dict[tuple[str | int, ...], int], path: tuple[str | int, ...]) -> int | None:
    """The line of a field, or of the nearest thing around it that has one."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return lines.get(())


def _model_at(model: type[BaseModel], path: tuple[str | int, ...]) -> type[BaseModel]:
    """The type of the sub-model that a field path leads to."""
    for part in path:
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        for candidate in list(candidates):
            candidates += getattr(candidate, "__args__", ())
        found = next((item for item in candidates if isinstance(item, type) and issubclass(item, BaseModel)), None)
        if found is None:
            return model
        model = found
    return model
