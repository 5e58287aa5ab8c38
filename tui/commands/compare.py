"""compare: several runs side by side, as text or JSON. The app's Compare screen draws their charts over each other."""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence

from tui.compared import Reader, find_runs
from tui.view.comparison import Comparison, GateRow, to_json
from tui.view.comparison import compare as compared
from tui.words import ascii_words, passed_sign, unicode_terminal


def compare(options: argparse.Namespace) -> int:
    runs, _ = Reader(find_runs(options.runs)).read()
    found = compared(runs)
    if options.json:
        print(json.dumps(to_json(found, runs)))
        return 0
    width = shutil.get_terminal_size((100, 24)).columns
    lines = [f"{letter(place)}  {run.id}  {run.status}" for place, run in enumerate(runs)]
    lines += [
        "",
        "what the recipes differ in" if found.differences else "the recipes are the same",
        *_recipe_rows(found, width),
    ]
    lines += ["", "gates" if found.gates else "no gate has been decided yet", *_gate_rows(found, width)]
    text = "\n".join(line.rstrip() for line in lines)
    print(text if unicode_terminal() else ascii_words(text))
    return 0


def letter(place: int) -> str:
    return chr(ord("A") + place)


def _recipe_rows(found: Comparison, width: int) -> list[str]:
    return table([[row.field, *row.values] for row in found.differences], len(found.ids), width)


def _gate_rows(found: Comparison, width: int) -> list[str]:
    rows = [[row.words, *(_words(row, place) for place in range(len(found.ids)))] for row in found.gates]
    return table(rows, len(found.ids), width)


def _words(row: GateRow, place: int) -> str:
    cell = row.cells[place]
    return row.figures(place) if cell is None else f"{passed_sign(cell.passed)} {row.figures(place)}"


def table(rows: Sequence[Sequence[str]], runs: int, width: int) -> list[str]:
    """Columns A, B, … under each other; long values are cut, so that a row stays a line."""
    if not rows:
        return []
    names = min(max(len(row[0]) for row in rows), 40)
    room = max(12, (width - names - 2) // runs - 2)
    columns = [min(room, max(len(row[place + 1]) for row in rows)) for place in range(runs)]
    heading = " " * (names + 2) + "  ".join(f"{letter(place):<{column}}" for place, column in enumerate(columns))
    return [heading] + [
        f"{_cut(row[0], names):<{names}}  "
        + "  ".join(f"{_cut(value, column):<{column}}" for value, column in zip(row[1:], columns, strict=True))
        for row in rows
    ]


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
