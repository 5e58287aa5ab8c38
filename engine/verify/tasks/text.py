"""Users' regular expressions and JSON schemas."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema

from engine.verify.segments import segments as segments  # called by name


def full_match(pattern: str, completion: str) -> dict[str, Any]:
    """Whether the stripped completion matches as a whole, and its group ``answer``."""
    compiled = re.compile(pattern, re.DOTALL)
    found = compiled.fullmatch(completion.strip())
    return {
        "match": found is not None,
        "answer": found["answer"] if found and "answer" in compiled.groupindex else None,
    }


def first_full_match(patterns: list[str], texts: list[str]) -> list[int | None]:
    """For each text the place of the first pattern that matches it, stripped, as a whole; None where none does."""
    compiled = [re.compile(pattern, re.DOTALL) for pattern in patterns]
    stripped = [text.strip() for text in texts]
    return [next((place for place, one in enumerate(compiled) if one.fullmatch(text)), None) for text in stripped]


def last_group(pattern: str, completion: str) -> str | None:
    """The group of the last match."""
    last = None
    for match in re.compile(pattern, re.DOTALL).finditer(completion):
        last = match
    return None if last is None else last[1]


def fits_schema(schema: Any, completion: str) -> str | None:
    """None if the completion is JSON that fits, else what is wrong."""
    try:
        value = json.loads(completion)
    except (ValueError, RecursionError) as error:
        return f"no JSON ({error})"
    if schema is None:
        return None
    misfit = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(value))
    return None if misfit is None else f"{misfit.json_path}: {misfit.message}"[:200]
