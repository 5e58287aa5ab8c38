"""data: what a dataset is, what is wrong with it, which methods it serves."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.data.inspect import Inspection, inspect
from engine.data.lengths import Lengths
from recipes.errors import InputError, Problem, nearest_word, quoted
from recipes.methods import cards
from recipes.resources import hub_dataset, resolve_source
from tui.commands.methods import find_card
from tui.fetching import Fetching
from tui.view.dataset_view import endings_words, verifiable_words
from tui.words import ascii_words, unicode_terminal, warning_sign

MIB = 2**20
SIGNS = {"ready": ("✓", "+"), "thin": ("⚠", "!"), "no": ("✗", "-"), "none needed": ("·", ".")}


def data(options: argparse.Namespace) -> int:
    """Exit code 2 when a run would refuse the data; warnings alone are 0."""
    method = find_card(options.method).name if options.method else None
    path = _path(options.file, "FILE")
    heldout = _path(options.heldout, "--heldout") if options.heldout else None
    if options.max_length is not None and options.max_length < 1:
        raise InputError(
            [Problem("--max-length", None, None, f"`{options.max_length}`", "a number of tokens from 1 on")]
        )
    verifier = given_verifier(options.verifier) if options.verifier else None
    progress = Progress()
    try:
        found = inspect(
            path,
            method,
            given_columns(options.columns),
            heldout,
            options.model,
            options.max_length,
            progress.told,
            verifier,
        )
    except InputError as error:
        if not options.json:
            raise
        problems = [asdict(problem) for problem in error.problems]
        print(json.dumps({"error": "input", "messages": [str(p) for p in error.problems], "problems": problems}))
        _complain(error.problems)
        return 2
    finally:
        progress.close()
    mismatch = _wrong_method(found, method)
    problems_found = [*found.problems, *mismatch]
    if options.json:
        answer: dict[str, Any] = found.to_json()
        if problems_found:
            answer |= {"error": "input", "messages": [str(problem) for problem in problems_found]}
        print(json.dumps(answer))
    else:
        for line in report_lines(found, method):
            print(line if unicode_terminal() else ascii_words(line))
    _complain(problems_found)
    return 2 if problems_found else 0


def _wrong_method(found: Inspection, method: str | None) -> list[Problem]:
    judged = next((item for item in found.serves if item.method == method), None)
    if judged is None or judged.verdict != "no":
        return []
    return [Problem(found.path, None, None, f"data that {method} cannot use", judged.why)]


def _complain(problems: list[Problem]) -> None:
    for problem in problems:
        print(f"finetune-tui data: {problem}", file=sys.stderr)


def _path(word: str, where: str) -> Path:
    """A file or directory anywhere, ``lab/…`` and ``builtin/…``, or a data set of the hub, fetched; unlike a recipe's, a
    typed path may lead out."""
    if word.startswith(("lab/", "builtin/")) and not Path(word).exists():
        return resolve_source(word, Path.cwd(), where)
    if hub_dataset(word, Path.cwd()):
        from engine.data.hub import fetch_missing

        fetching = Fetching()
        try:
            fetch_missing([word], Path.cwd(), fetching.told, where)
        finally:
            fetching.close()
        return resolve_source(word, Path.cwd(), where)
    return resolve_source(str(Path(word).expanduser().absolute()), Path.cwd(), where)


def given_columns(words: list[str]) -> dict[str, str]:
    """``["prompt=frage,completion=antwort"]`` -> what plays which part. Raises InputError."""
    given: dict[str, str] = {}
    for word in (part.strip() for text in words for part in text.split(",")):
        ours, equals, theirs = word.partition("=")
        if not equals or not ours.strip() or not theirs.strip():
            accepted = "OURS=YOURS, such as `prompt=question,completion=reply`"
            raise InputError([Problem("--columns", None, None, f"`{word}`", accepted)])
        given[ours.strip()] = theirs.strip()
    return given


def given_verifier(word: str) -> dict[str, Any]:
    """``number``, or ``{kind: regex, pattern: …}`` as in a recipe. Raises InputError."""
    import pydantic
    import yaml

    from recipes import verifiers

    try:
        found = yaml.safe_load(word) if word.lstrip().startswith("{") else {"kind": word}
    except yaml.YAMLError as error:
        raise InputError(
            [Problem("--verifier", None, None, f"`{word}`", "`number`, or `{kind: …}` as YAML")]
        ) from error
    kinds = ("number", "exact", "math", "regex", "json", "code", "python", "steps", "custom-steps")
    accepted = f"one of {quoted(kinds)}, with its settings where it needs any: '{{kind: regex, pattern: \"…\"}}'"
    try:
        return dict(pydantic.TypeAdapter(verifiers.VerifierSpec).validate_python(found).model_dump())
    except pydantic.ValidationError as error:
        kind = found.get("kind") if isinstance(found, dict) else None
        said = str(error.errors()[0]["msg"]) if kind in kinds else "no kind of verifier"
        near = None if kind in kinds else nearest_word(str(kind), kinds)
        raise InputError([Problem("--verifier", None, None, f"`{word}` ({said})", accepted, near)]) from error


class Progress:
    """How far a large file is read, on stderr: a line that is rewritten on a terminal, else one every ten seconds."""

    FIRST, AGAIN, PLAIN = 1.0, 0.2, 10.0

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()
        self._shown = False
        self._terminal = sys.stderr.isatty()

    def told(self, done: int, size: int, rows: int) -> None:
        now = time.monotonic()
        every = self.AGAIN if self._terminal else self.PLAIN
        if now - self._started < self.FIRST or now - self._last < every:
            return
        self._last, self._shown = now, True
        speed = done / (now - self._started)
        left = f", {(size - done) / speed:.0f} s left" if speed and done < size else ""
        words = f"{done / max(1, size):4.0%} of {size / MIB:.0f} MiB, {rows} rows{left}"
        print(
            f"\r{words:<60}" if self._terminal else words,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )

    def close(self) -> None:
        if self._shown and self._terminal:
            print(f"\r{'':<60}\r", end="", file=sys.stderr, flush=True)


# ---- the report --------------------------------------------------------------------------------------------------------


def report_lines(found: Inspection, method: str | None) -> list[str]:
    reading = found.reading
    assert reading is not None
    files = f"{found.files} files, " if found.files > 1 else ""
    bad = f", {found.bad_rows} that cannot be used" if found.bad_rows else ""
    lines = [f"{found.path}: {files}{found.size / MIB:.1f} MiB, {found.rows} rows{bad}", ""]
    lines.append(f"read as      {reading.layout} ({reading.confidence:.0%} sure)")
    lines += [f"             {ours:<15} is your column `{theirs}`" for ours, theirs in reading.columns.items()]
    unused = [name for name in found.columns if name not in reading.columns.values()]
    if unused:
        lines.append(f"             not used: {', '.join(unused[:12])}{' …' if len(unused) > 12 else ''}")
    if reading.renamed():
        pairs = ", ".join(f"{ours}: {theirs}" for ours, theirs in reading.renamed().items())
        lines.append(f"             in the recipe: columns: {{{pairs}}}")
    others = [item for item in found.readings[1:] if item.confidence >= 0.5]
    lines += [f"             or, less sure: {item.layout} ({item.confidence:.0%})" for item in others]
    for lengths in (found.characters, found.tokens):
        if lengths:
            lines.append(f"{lengths.unit:<12} {length_words(lengths)}")
    if found.gap is not None:
        lines.append(f"gap          {found.gap:.2f} (scores scaled to 0-1, n {found.scored})")
    if found.endings:
        lines.append(f"ends         {endings_words(asdict(found.endings))}")
    if found.verifiability:
        lines.append(f"verifiable   {verifiable_words(asdict(found.verifiability))}")
    if found.leakage:
        leak = found.leakage
        lines.append(
            f"held out     {leak.heldout} rows; {leak.rows} of them and {leak.prompts} of their prompts are trained on"
        )
    if found.example:
        lines += ["", "an example; what is trained on is marked >"]
        lines += [line for turn in found.example for line in _turn_lines(turn)]
    lines += ["", "serves"]
    lines += [
        _served_line(item.method, item.verdict, item.why) for item in found.serves if method in (None, item.method)
    ]
    if found.warnings:
        lines.append("")
    lines += [f"{warning_sign()} {text}" for text in found.warnings]
    return lines


def length_words(lengths: Lengths) -> str:
    marks = ", ".join(f"{name} {value}" for name, value in lengths.quantiles.items())
    template = ", chat template included" if lengths.template else ""
    return f"mean {lengths.mean:.0f}, {marks}, longest {lengths.longest} (n {lengths.n} of {lengths.of}{template})"


def _served_line(method: str, verdict: str, why: str) -> str:
    sign = SIGNS[verdict][0 if unicode_terminal() else 1]
    name = method.replace("_", "-")
    return f"  {sign} {name:<{max(map(len, cards())) + 1}} {verdict:<11} {why}"


def _turn_lines(turn: dict[str, Any]) -> list[str]:
    mark = ">" if turn["trained"] else " "
    text = " ".join(turn["text"].split())
    text = text if len(text) <= 300 else text[:297] + "..."
    wrapped = textwrap.wrap(text, 90) or [""]
    return [f"  {mark} {turn['role'] if not number else '':<10} {line}" for number, line in enumerate(wrapped)]
