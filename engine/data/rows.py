"""Rows out of files: JSON lines, JSON, CSV, TSV, or a directory of those, each with the place it came from."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipes.errors import InputError, Problem, quoted

Row = dict[str, Any]
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")


def read_rows(path: Path) -> Iterator[tuple[str, int, Row]]:
    """``(file, line, row)`` for every row under ``path``. Raises InputError naming file and line of what is wrong."""
    files = data_files(path)
    count = 0
    for file in files:
        for line, row in _read(file):
            count += 1
            yield str(file), line, row
    if not count:
        raise InputError([Problem(str(path), None, None, "no rows", "at least one row of data")])


def data_files(path: Path) -> list[Path]:
    """The data files behind a source, in a fixed order."""
    files = sorted(entry for entry in path.rglob("*") if entry.suffix in SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise InputError([Problem(str(path), None, None, "a directory without data files", quoted(SUFFIXES))])
    for file in files:
        if file.suffix not in SUFFIXES:
            raise InputError([Problem(str(file), None, None, f"a file that ends in `{file.suffix}`", quoted(SUFFIXES))])
    return files


def _read(file: Path) -> Iterator[tuple[int, Row]]:
    if file.suffix == ".jsonl":
        yield from _json_lines(file)
    elif file.suffix == ".json":
        yield from _json(file)
    else:
        yield from _table(file)


def _json_lines(file: Path) -> Iterator[tuple[int, Row]]:
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield number, _object(file, number, line)


def _object(file: Path, number: int, line: bytes) -> Row:
    try:
        row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(
            [Problem(str(file), number, None, f"bytes that are not UTF-8 ({error})", "UTF-8 text")]
        ) from None
    except json.JSONDecodeError as error:
        shown = line.decode("utf-8", "replace").strip()[:60]
        found = f"no JSON ({error.msg} at column {error.colno}): {shown!r}"
        raise InputError([Problem(str(file), number, None, found, "one JSON object on each line")]) from None
    if not isinstance(row, dict):
        raise InputError([Problem(str(file), number, None, f"a {type(row).__name__}", "one JSON object on each line")])
    return row


def _json(file: Path) -> Iterator[tuple[int, Row]]:
    data = file.read_bytes()
    try:
        found = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            [Problem(str(file), line, None, f"bytes that are not UTF-8 ({error})", "UTF-8 text")]
        ) from None
    except json.JSONDecodeError as error:
        raise InputError(
            [Problem(str(file), error.lineno, None, f"no JSON ({error.msg})", "a list of objects")]
        ) from None
    rows = found if isinstance(found, list) else [found]
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise InputError(
                [Problem(str(file), None, f"[{number - 1}]", f"a {type(row).__name__}", "a list of objects")]
            )
        yield number, row


def _table(file: Path) -> Iterator[tuple[int, Row]]:
    try:
        with open(file, encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, delimiter="\t" if file.suffix == ".tsv" else ",", strict=True)
            for row in reader:
                if None in row or None in row.values():
                    found = f"a row with {'more' if None in row else 'fewer'} cells than the heading"
                    raise InputError(
                        [Problem(str(file), reader.line_num, None, found, quoted(reader.fieldnames or []))]
                    )
                yield reader.line_num, dict(row)
    except UnicodeDecodeError as error:
        raise InputError(
            [Problem(str(file), None, None, f"bytes that are not UTF-8 ({error})", "UTF-8 text")]
        ) from None
    except csv.Error as error:
        raise InputError(
            [Problem(str(file), None, None, f"no table ({error})", "comma- or tab-separated values")]
        ) from None
