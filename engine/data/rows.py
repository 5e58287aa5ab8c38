"""Rows out of files: JSON lines, JSON, CSV, TSV, Parquet, plain text, or a directory of those, each with its place.

Everything is streamed: a file of any size is read in bounded memory. ``scan_rows`` goes on after a bad row where the
format allows it and yields the Problem in the row's place; ``read_rows`` raises the first.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine.data.json_stream import json_lines, json_values
from engine.data.places import LONGEST, bad_bytes, problem
from recipes.errors import InputError, Problem, nearest_word, quoted

Row = dict[str, Any]
Scanned = tuple[str, int, Row | Problem]
"""File, line (a table's or Parquet file's row), and the row or what is wrong with it."""
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
ALSO = {".ndjson": ".jsonl", ".pq": ".parquet", ".tab": ".tsv"}
"""Other endings of the same formats."""
BATCH = 256
"""Rows of a Parquet file that are held at once."""
MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"PAR1", "a Parquet file", "name it .parquet: mv {file} {stem}.parquet"),
    (b"ARROW1", "an Arrow file", "Parquet: python -c \"import pyarrow.feather as f, pyarrow.parquet as p; "
     "p.write_table(f.read_table('{file}'), '{stem}.parquet')\""),
    (b"\xff\xff\xff\xff", "an Arrow stream", "Parquet: python -c \"import pyarrow as a, pyarrow.parquet as p; "
     "p.write_table(a.ipc.open_stream('{file}').read_all(), '{stem}.parquet')\""),
    (b"\x1f\x8b", "a gzip archive", "the file inside: gunzip {file}"),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive", "the file inside: unzstd {file}"),
    (b"BZh", "a bzip2 archive", "the file inside: bunzip2 {file}"),
    (b"\xfd7zXZ", "an xz archive", "the file inside: unxz {file}"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet (.xlsx)", "the file inside (unzip), or the sheet saved as CSV UTF-8"),
    (b"SQLite format 3", "an SQLite database", "a table of it: sqlite3 -header -csv {file} 'select * from T' > rows.csv"),
    (b"%PDF", "a PDF", "its text as rows"),
    (b"\x89HDF", "an HDF5 file", "Parquet"),
    (b"\x93NUMPY", "a NumPy file", "rows with named columns"),
    (b"version https://git-lfs", "a git-LFS pointer instead of the data", "the data itself: git lfs pull"),
    (b"<!DOCTYPE html", "a web page", "the data itself: the page's download or raw link"),
    (b"<html", "a web page", "the data itself: the page's download or raw link"),
)  # fmt: skip
"""First bytes -> what the file really is, and how to get at its rows."""
UTF8_MEND = (
    "UTF-8 text without zero bytes; if it is UTF-16 without a mark: iconv -f UTF-16LE -t UTF-8 {file} > utf8.csv"
)
UTF16_32 = {b"\xff\xfe\x00\x00": "UTF-32", b"\x00\x00\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def read_rows(path: Path) -> Iterator[tuple[str, int, Row]]:
    """``(file, line, row)`` for every row under ``path``. Raises InputError naming file and line of what is wrong."""
    count = 0
    for file, line, row in scan_rows(path):
        if isinstance(row, Problem):
            raise InputError([row])
        count += 1
        yield file, line, row
    if not count:
        raise InputError([no_rows(path)])


def scan_rows(path: Path, passed: Callable[[int], None] | None = None) -> Iterator[Scanned]:
    """Every row under ``path``, a Problem in the place of one that cannot be read.

    ``passed`` is told now and then how many bytes of all files were read. Raises InputError for a file that cannot
    be opened or is of no known format.
    """
    before = 0
    for file in data_files(path):
        whole = file.stat().st_size
        wrong = disguised(file)
        if wrong is not None:
            yield str(file), 1, wrong
        else:
            told = None if passed is None else lambda here, before=before, passed=passed: passed(before + here)
            for line, row in _read(file, told):
                yield str(file), line, row
        before += whole
        if passed is not None:
            passed(before)


def no_rows(path: Path) -> Problem:
    return Problem(str(path), None, None, "no rows", "at least one row of data")


def data_files(path: Path) -> list[Path]:
    """The data files behind a source, in a fixed order. In a directory, text counts only where there is nothing else."""
    if path.is_dir():
        entries = [entry for entry in path.rglob("*") if entry.is_file() and suffix_of(entry) in SUFFIXES]
        entries = [entry for entry in entries if not any(p.startswith(".") for p in entry.relative_to(path).parts)]
        files = sorted(entry for entry in entries if suffix_of(entry) != ".txt") or sorted(entries)
    else:
        files = [path]
    if not files:
        raise InputError([Problem(str(path), None, None, "a directory without data files", quoted(SUFFIXES))])
    for file in files:
        if suffix_of(file) not in SUFFIXES:
            wrong = disguised(file)
            near = nearest_word(file.suffix, SUFFIXES) if file.suffix else None
            found = f"a file that ends in `{file.suffix}`" if file.suffix else "a file without an ending"
            raise InputError([wrong or Problem(str(file), None, None, found, quoted(SUFFIXES), near)])
    return files


def suffix_of(file: Path) -> str:
    suffix = file.suffix.lower()
    return ALSO.get(suffix, suffix)


def disguised(file: Path) -> Problem | None:
    """A file whose first bytes are not what its name says."""
    try:
        with open(file, "rb") as opened:
            start = opened.read(64)
    except OSError as error:
        raise InputError(
            [Problem(str(file), None, None, f"no way to read it ({error.strerror})", "a readable file")]
        ) from None
    names = {"file": str(file), "stem": str(file.with_suffix(""))}
    for magic, what, mend in MAGIC:
        if start.lower().startswith(magic.lower()) if magic.startswith(b"<") else start.startswith(magic):
            if magic == b"PAR1" and suffix_of(file) == ".parquet":
                return None
            found = f"{what} named `{file.suffix}`" if file.suffix else what
            return Problem(str(file), 1, None, found, mend.format(**names))
    for mark, encoding in UTF16_32.items():
        if start.startswith(mark):
            accepted = f"UTF-8: iconv -f {encoding} -t UTF-8 {file} > {names['stem']}-utf8{file.suffix}"
            return Problem(str(file), 1, None, f"{encoding} text", accepted)
    if suffix_of(file) == ".parquet":
        return Problem(
            str(file), 1, None, "no Parquet file", "a Parquet file, or the ending that belongs to its format"
        )
    return None


def _read(file: Path, told: Callable[[int], None] | None) -> Iterator[tuple[int, Row | Problem]]:
    kind = suffix_of(file)
    if kind == ".jsonl":
        yield from json_lines(file, told)
    elif kind == ".json":
        yield from json_values(file, told)
    elif kind == ".parquet":
        yield from _parquet(file, told)
    elif kind == ".txt":
        yield from _text(file, told)
    else:
        yield from _table(file, told)


# ---- tables ------------------------------------------------------------------------------------------------------------


def _table(file: Path, told: Callable[[int], None] | None) -> Iterator[tuple[int, Row | Problem]]:
    tabs = suffix_of(file) == ".tsv"
    csv.field_size_limit(LONGEST)
    with open(file, "rb") as raw, io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, delimiter="\t" if tabs else ",", strict=True)
        try:
            heading = next(reader, None)
            if heading is None:
                return
            wrong = _heading(file, heading, tabs)
            if wrong:
                yield 1, wrong
                return
            for number, row in enumerate(reader):
                if told and number % 1000 == 0:
                    told(raw.tell())
                if not row:
                    continue
                if any("\0" in cell for cell in row):
                    name = next(name for name, cell in zip(heading, row, strict=False) if "\0" in cell)
                    found = "zero bytes in a text"
                    yield reader.line_num, problem(file, reader.line_num, found, UTF8_MEND.format(file=file), name)
                    return
                if len(row) == len(heading):
                    yield reader.line_num, dict(zip(heading, row, strict=True))
                    continue
                more = "more" if len(row) > len(heading) else "fewer"
                found = f"a row with {more} cells than the heading ({len(row)}, not {len(heading)})"
                accepted = f'{quoted(heading)}; a cell that holds a {"tab" if tabs else "comma"} or a line break stands in "quotes"'
                yield reader.line_num, problem(file, reader.line_num, found, accepted)
        except UnicodeDecodeError:
            yield bad_bytes(file)
        except csv.Error as error:
            yield reader.line_num, problem(file, reader.line_num, f"no table ({error})", _csv_mend(str(error)))


def _heading(file: Path, heading: list[str], tabs: bool) -> Problem | None:
    """What is wrong with a table's first row, which names its columns."""
    text = "".join(heading)
    if "\0" in text:
        return problem(file, 1, "zero bytes in the heading", UTF8_MEND.format(file=file))
    if len(heading) == 1:
        for sign, name in ((";", "`;`"), ("\t", "tabs"), ("|", "`|`"), (",", "commas")):
            if sign in text:
                wanted = "tabs, as the ending .tsv says" if tabs else "commas (or tabs and the ending .tsv)"
                return problem(file, 1, f"columns separated by {name}", wanted)
    empty = next((number for number, name in enumerate(heading, start=1) if not name.strip()), None)
    if empty is not None:
        return problem(file, 1, f"column {empty} of the heading without a name", "a name for every column")
    twice = next((name for name in heading if heading.count(name) > 1), None)
    if twice is not None:
        return problem(file, 1, "the same column twice in the heading", "each name once", field=twice)
    if all(len(name) > 40 or re.search(r"[?.!]\s*$", name) for name in heading):
        shown = heading[0][:40]
        return problem(
            file,
            1,
            f"no heading: the first row reads `{shown}`",
            "a first row that names the columns, such as `prompt,completion`",
        )
    return None


def _csv_mend(error: str) -> str:
    if "expected after" in error:
        return 'a quote inside a quoted cell written twice ("")'
    if "unexpected end" in error:
        return "a closing quote for every quote that opens a cell"
    if "field larger" in error:
        return f"cells of at most {LONGEST // 2**20} MiB"
    return "comma- or tab-separated values"


def _parquet(file: Path, told: Callable[[int], None] | None) -> Iterator[tuple[int, Row | Problem]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        accepted = "the library that reads it: pip install pyarrow; or JSON lines"
        yield 1, problem(file, None, "Parquet, which nothing here can read", accepted)
        return
    number = 0
    try:
        with ParquetFile(file) as opened:
            total, whole = max(1, opened.metadata.num_rows), file.stat().st_size
            for batch in opened.iter_batches(batch_size=BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
                if told:
                    told(whole * number // total)
    except (ArrowException, OSError) as error:
        said = " ".join(str(error).split())[:120]
        yield (
            number + 1,
            problem(file, number + 1, f"a damaged Parquet file ({said})", "a whole one: fetch or write it again"),
        )


# ---- text --------------------------------------------------------------------------------------------------------------


def _text(file: Path, told: Callable[[int], None] | None) -> Iterator[tuple[int, Row | Problem]]:
    """One row a paragraph, in the one column ``text``."""
    lines: list[str] = []
    size, start, here = 0, 1, 0
    with open(file, "rb") as opened:
        for number, line in enumerate(iter(lambda: opened.readline(LONGEST + 1), b""), start=1):
            here += len(line)
            if told and number % 1000 == 0:
                told(here)
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip()
            except UnicodeDecodeError:
                yield bad_bytes(file)
                return
            if number == 1 and text.startswith("{"):
                yield (
                    1,
                    problem(
                        file, 1, "JSON in a text file", f"the ending .jsonl: mv {file} {file.with_suffix('.jsonl')}"
                    ),
                )
                return
            if text:
                if not lines:
                    start = number
                lines.append(text)
                size += len(line)
            if lines and (not text or size > LONGEST):
                if size > LONGEST:
                    yield (
                        start,
                        problem(
                            file, start, f"a paragraph of {size / 2**20:.1f} MiB", "blank lines between paragraphs"
                        ),
                    )
                else:
                    yield start, {"text": "\n".join(lines)}
                lines, size = [], 0
    if lines:
        yield start, {"text": "\n".join(lines)}
