"""JSON and JSON lines, one value at a time, with the line and column of what is wrong and how to mend it."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.data.places import LONGEST, bad_bytes, not_utf8, problem
from recipes.errors import Problem

Told = Callable[[int], None] | None
CHUNK = 2**20
ONE_A_LINE = "one JSON object on each line"
A_LIST = "a list of objects"
WRAPPERS = ("data", "train", "rows", "examples", "instances", "records", "items")


class NotAccepted(ValueError):
    """JSON that parses but must not be trusted; ``found`` and ``accepted`` as in a Problem."""

    def __init__(self, found: str, accepted: str) -> None:
        super().__init__(found)
        self.found, self.accepted = found, accepted


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise NotAccepted(f"the field `{twice}` twice in one object", "each field once")
    return result


def _constant(word: str) -> Any:
    raise NotAccepted(f"the number {word}", "numbers that are finite, or null")


DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)


SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def decode(text: str, at: int = 0) -> tuple[Any, int]:
    """The value that begins at ``at`` and where it ends. Raises JSONDecodeError, or NotAccepted."""
    try:
        value, end = DECODER.raw_decode(text, at)
    except RecursionError:
        raise NotAccepted("values nested too deep", "rows of a few levels") from None
    except (json.JSONDecodeError, NotAccepted):
        raise
    except ValueError:  # Python refuses to convert numbers of thousands of digits
        raise NotAccepted("a number of thousands of digits", "a number, or text in quotes") from None
    if SURROGATE.search(text, at, end):
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            accepted = "both halves of the pair, such as \\ud83d\\ude00, or the character itself"
            raise NotAccepted("half a character (a lone surrogate such as \\ud83d)", accepted) from None
    return value, end


def json_lines(file: Path, told: Told) -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    here = 0
    with open(file, "rb") as opened:
        number = 0
        while line := opened.readline(LONGEST + 1):
            number += 1
            size = len(line)
            if size > LONGEST and not line.endswith(b"\n"):
                while rest := opened.readline(CHUNK):  # its end, a piece at a time
                    size += len(rest)
                    if rest.endswith(b"\n"):
                        break
                accepted = f"rows of at most {LONGEST // 2**20} MiB: split the text; no model's context holds more"
                yield number, problem(file, number, f"a line of {size / 2**20:.1f} MiB", accepted)
            elif line.strip():
                row = _line(file, number, line)
                yield number, row
                if isinstance(row, Problem) and number == 1 and line.strip() in (b"[", b"{"):
                    return  # a whole JSON document: every line would be wrong
            here += size
            if told and number % 1000 == 0:
                told(here)


def _line(file: Path, number: int, line: bytes) -> dict[str, Any] | Problem:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
    except UnicodeDecodeError as error:
        return not_utf8(file, number, line, error)
    try:
        row, end = decode(text)
        if end < len(text):
            raise json.JSONDecodeError("Extra data", text, end)
    except NotAccepted as error:
        return problem(file, number, error.found, error.accepted)
    except json.JSONDecodeError as error:
        found = f"no JSON ({error.msg} at column {error.pos + 1}): {text[:60]!r}"
        return problem(file, number, found, mend_line(text, error))
    if not isinstance(row, dict):
        accepted = ONE_A_LINE + (" (a list of objects is a .json file)" if isinstance(row, list) else "")
        return problem(file, number, f"a {kind_of(row)}", accepted)
    return row


def mend_line(text: str, error: json.JSONDecodeError) -> str:
    """What to do about a line that is no JSON, as exact as its looks allow."""
    rest = text[error.pos :]
    if error.msg == "Extra data" and rest.startswith(","):
        return f"{ONE_A_LINE}, without the comma at its end"
    if error.msg == "Extra data" and rest.startswith("{"):
        return f"{ONE_A_LINE}: a line break before column {error.pos + 1}"
    if text in ("[", "{"):
        return f"{ONE_A_LINE}; a document over several lines is a .json file: rename it"
    return mend_value(text, error) or ONE_A_LINE


def mend_value(text: str, error: json.JSONDecodeError) -> str | None:
    """The common mistakes inside a value."""
    rest, before = text[error.pos :].lstrip(), text[: error.pos].rstrip()
    if before.endswith(",") and rest[:1] in ("}", "]"):
        return f"no comma before the `{rest[0]}`"
    if rest.startswith("'") or re.match(r"(None|True|False)\b", rest):
        return 'JSON\'s spelling: "double quotes", null, true, false (Python writes it with json.dumps, not str)'
    if "control character" in error.msg:
        return "a line break or tab inside a text written as \\n or \\t"
    if "escape" in error.msg:
        return "a backslash in a text written twice (\\\\)"
    if "Unterminated string" in error.msg or not rest:
        return "the rest of it: the value is cut off"
    if rest.startswith(("//", "/*", "#")):
        return "JSON has no comments"
    if error.msg == "Expecting ',' delimiter" and before.endswith('"'):
        return 'a comma here, or a quote inside the text written as \\"'
    return None


def json_values(file: Path, told: Told) -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    """The objects of a list, one at a time; a single object; or JSON lines under a .json name."""
    stream = _Stream(file, told)
    try:
        first = stream.peek()
        if first is None:
            return
        if first == "{":
            yield from _document(file, stream, told)
        elif first == "[":
            yield from _list(file, stream)
        else:
            yield stream.line, problem(file, stream.line, f"no JSON: it begins with {first!r}", A_LIST)
    except UnicodeDecodeError:
        yield bad_bytes(file)
    finally:
        stream.close()


def _document(file: Path, stream: _Stream, told: Told) -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    """A document that is one object: JSON lines, a row, or something around the rows."""
    line = stream.line
    try:
        value = stream.value()
    except NotAccepted as error:
        yield line, problem(file, line, error.found, error.accepted)
        return
    except json.JSONDecodeError as error:
        if error.msg == "too long":
            found = f"one object of more than {LONGEST // 2**20} MiB"
            yield line, problem(file, line, found, f"{A_LIST}, or JSON lines: jq -c '.data[]' {file} > rows.jsonl")
            return
        yield stream.wrong(error)
        return
    ended = stream.line
    rest = stream.peek()
    if rest is not None:
        if ended == line < stream.line:  # another value on a line of its own
            yield from json_lines(file, told)
        else:
            yield stream.line, problem(file, stream.line, f"something after the object: {rest!r}", A_LIST)
        return
    inside = [name for name, held in value.items() if isinstance(held, list) and held and isinstance(held[0], dict)]
    named = [name for name in inside if name.lower() in WRAPPERS]
    if named or (len(inside) == 1 and len(value) == 1 and inside[0] not in ("messages", "conversations")):
        name = (named or inside)[0]
        found = f"an object whose `{name}` holds the rows"
        yield (
            line,
            problem(
                file, line, found, f"{A_LIST}: jq -c '.\"{name}\"[]' {file} > {file.with_suffix('.jsonl')}", field=name
            ),
        )
        return
    lists = [held for held in value.values() if isinstance(held, list)]
    plain = not any(isinstance(item, dict) for held in lists for item in held[:1])
    if len(lists) == len(value) > 1 and len({len(held) for held in lists}) == 1 and plain:
        found = f"columns of {len(lists[0])} values each instead of rows"
        mend = f"{A_LIST}: python -c \"import json; d = json.load(open('{file}')); " + (
            'print(json.dumps([dict(zip(d, r)) for r in zip(*d.values())]))" > rows.json'
        )
        yield line, problem(file, line, found, mend)
        return
    yield line, value


def _list(file: Path, stream: _Stream) -> Iterator[tuple[int, dict[str, Any] | Problem]]:
    stream.skip("[")
    number = 0
    while True:
        sign = stream.peek()
        if sign == "]":
            if number and stream.after_comma:
                yield stream.line, problem(file, stream.line, "a comma before the `]`", "no comma after the last row")
                return
            stream.skip("]")
            if stream.peek() is not None:
                yield stream.line, problem(file, stream.line, "something after the list", A_LIST)
            return
        if sign is None:
            yield (
                stream.line,
                problem(file, stream.line, "a list that is cut off", "the rest of it, and a `]` at its end"),
            )
            return
        line = stream.line
        try:
            value = stream.value()
        except NotAccepted as error:
            yield line, problem(file, line, error.found, error.accepted, field=f"[{number}]")
            return
        except json.JSONDecodeError as error:
            if error.msg == "too long":
                yield (
                    line,
                    problem(file, line, f"a row of more than {LONGEST // 2**20} MiB", "shorter rows: split the text"),
                )
            else:
                yield stream.wrong(error)
            return
        if isinstance(value, dict):
            yield line, value
        else:
            yield line, problem(file, line, f"a {kind_of(value)}", A_LIST, field=f"[{number}]")
        number += 1
        sign = stream.peek()
        if sign == ",":
            stream.skip(",")
        elif sign not in ("]", None):
            yield stream.line, problem(file, stream.line, f"{sign!r} after a row", "a comma between two rows")
            return


class _Stream:
    """A JSON document's text, with a window that moves over it."""

    def __init__(self, file: Path, told: Told) -> None:
        self._file, self._told = file, told
        self._opened = open(file, "rb")  # noqa: SIM115 - closed by ``close``
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._read, self._ended = "", 0, 0, False
        self.line = 1
        """Line of the window's beginning."""
        self.after_comma = False

    def close(self) -> None:
        self._opened.close()

    def peek(self) -> str | None:
        """The next character that is no white space, which is skipped; None at the end."""
        while True:
            while self._at < len(self._text):
                sign = self._text[self._at]
                if sign not in " \t\r\n":
                    return sign
                self.line += sign == "\n"
                self._at += 1
            if not self._more():
                return None

    def skip(self, sign: str) -> None:
        self._at += len(sign)
        self.after_comma = sign == ","

    def value(self) -> Any:
        """The value that begins here. Raises JSONDecodeError; "too long" beyond the limit."""
        while True:
            try:
                value, end = decode(self._text, self._at)
            except json.JSONDecodeError:
                if len(self._text) - self._at > LONGEST:
                    raise json.JSONDecodeError("too long", self._text, self._at) from None
                if not self._more():
                    raise
                continue
            self.line += self._text.count("\n", self._at, end)
            self._at, self.after_comma = end, False
            return value

    def wrong(self, error: json.JSONDecodeError) -> tuple[int, Problem]:
        """The place of a syntax error in the file, and its mend."""
        if "control character" in error.msg:  # the scanner is already past it
            error = json.JSONDecodeError("Invalid control character", error.doc, max(self._at, error.pos - 1))
        line = self.line + self._text.count("\n", self._at, error.pos)
        begin = self._text.rfind("\n", 0, error.pos) + 1
        column = error.pos - begin + 1
        shown = self._text[begin : begin + 60].strip()
        accepted = mend_value(self._text[max(0, error.pos - 200) :], _shifted(error, max(0, error.pos - 200))) or A_LIST
        return line, problem(self._file, line, f"no JSON ({error.msg} at column {column}): {shown!r}", accepted)

    def _more(self) -> bool:
        """Read on; what lies before the window is let go. False at the end of the file."""
        if self._ended:
            return False
        data = self._opened.read(max(CHUNK, len(self._text) - self._at))
        self._read += len(data)
        self._text = self._text[self._at :] + self._decode.decode(data, final=not data)
        self._at = 0
        self._ended = not data
        if self._told:
            self._told(self._read)
        return bool(data)


def _shifted(error: json.JSONDecodeError, by: int) -> json.JSONDecodeError:
    return json.JSONDecodeError(error.msg, error.doc[by:], error.pos - by)


def kind_of(value: Any) -> str:
    """A value's type in JSON's words."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "number", float: "number", str: "text", list: "list", dict: "object"}
    return names.get(type(value), type(value).__name__)
