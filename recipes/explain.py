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
VERIFIER_KINDS = ("number", "exact", "math", "regex", "json", "code", "python", "steps", "custom-steps", "sum")
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
        path = _field_path(item["loc"])
        full = (*prefix, *path)
        field = ".".join(map(str, full))
        if item["type"] == "extra_forbidden":
            fields = sorted(_model_at(model, item["loc"][:-1]).model_fields)
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
    if item["type"] == "value_error":  # a validator of ours, which says what it accepts
        return Problem(where, line, field, shown, str(context["error"]))
    if item["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kinds = [word.strip("' ") for word in str(context.get("expected_tags", "")).split(",") if word]
        accepted = quoted(kinds) if kinds else "a `kind`"
        tag = context.get("tag")
        key = str(context["discriminator"]).strip("'")
        shown = f"`{tag}`" if tag is not None else "nothing"
        return Problem(where, line, f"{field}.{key}", shown, accepted, nearest_word(str(tag), kinds) if tag else None)
    if item["type"] == "literal_error":
        words = [word.strip("' ") for word in str(context["expected"]).replace(" or ", ", ").split(",")]
        return Problem(where, line, field, shown, quoted(words), nearest_word(str(found), words))
    bounds = {"greater_than": "more than {gt}", "greater_than_equal": "at least {ge}", "less_than": "less than {lt}"}
    bounds |= {"less_than_equal": "at most {le}", "too_short": "at least {min_length} of them"}
    bounds |= {"too_long": "at most {max_length} of them", "string_too_short": "text that is not empty"}
    bounds |= {
        "string_pattern_mismatch": "lower-case letters, digits and hyphens, at most 64, starting with one of the first two"
    }
    known = bounds.get(item["type"], KINDS.get(item["type"]))
    accepted = known.format(**context) if known else str(item["msg"])
    return Problem(where, line, field, shown, accepted)


def _field_path(location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The field as the user wrote it: without the names that pydantic gives the variants of a union."""
    path: list[str | int] = []
    for i, part in enumerate(location):
        variant = part in UNION_TAGS or (part in VERIFIER_KINDS and i > 0 and location[i - 1] == "verifier")
        if not variant:
            path.append(part)
    return tuple(path)


def _line(lines: dict[tuple[str | int, ...], int], path: tuple[str | int, ...]) -> int | None:
    """The line of a field, or of the nearest thing around it that has one."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return lines.get(())


def _model_at(model: type[BaseModel], path: tuple[str | int, ...]) -> type[BaseModel]:
    """The type of the sub-model that a field path leads to."""
    variants: list[type[BaseModel]] = []
    for part in path:
        tagged = next((one for one in variants if _kind(one) == part), None)
        if tagged is not None:
            model, variants = tagged, []
            continue
        annotation = model.model_fields[str(part)].annotation if str(part) in model.model_fields else None
        variants = _models_in(annotation)
        if variants:
            model = variants[0]
    return model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that stand in a field's type, however deep in unions and lists."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in getattr(annotation, "__args__", ()) for model in _models_in(argument)]


def _kind(model: type[BaseModel]) -> str | None:
    """The ``kind`` by which a variant of a union is told from the others."""
    field = model.model_fields.get("kind")
    words = getattr(field.annotation, "__args__", ()) if field else ()
    return str(words[0]) if words else None
