"""Where in a file something is wrong, and how to say it."""

from __future__ import annotations

from pathlib import Path

from recipes.errors import Problem

LONGEST = 8 * 2**20
"""Bytes of one row. No model's context holds this much; it also bounds the memory of reading."""


def problem(file: Path, line: int | None, found: str, accepted: str, field: str | None = None) -> Problem:
    return Problem(str(file), line, field, found, accepted)


def bad_bytes(file: Path) -> tuple[int, Problem]:
    """``(line, problem)`` of the first byte that is not UTF-8."""
    line = 0
    with open(file, "rb") as opened:
        rest = b""
        for line, data in enumerate(iter(lambda: opened.readline(LONGEST), b""), start=1):
            try:
                (rest + data).decode("utf-8")
                rest = b""
            except UnicodeDecodeError as error:
                if not data.endswith(b"\n") and error.reason == "unexpected end of data":
                    rest = data[error.start :]  # the limit of one read cut a character
                    continue
                return line, not_utf8(file, line, data, error)
    return line, problem(file, line, "bytes that are not UTF-8", "UTF-8 text")


def not_utf8(file: Path, line: int, data: bytes, error: UnicodeDecodeError) -> Problem:
    """The line and column of a bad byte, and the command that converts the file."""
    column = len(data[: error.start].decode("utf-8", "replace")) + 1
    found = f"the byte 0x{data[error.start]:02x} at column {column}, which is not UTF-8"
    accepted = f"UTF-8 text: iconv -f WINDOWS-1252 -t UTF-8 {file} > {file.with_suffix('')}-utf8{file.suffix}"
    return problem(file, line, found, accepted)
