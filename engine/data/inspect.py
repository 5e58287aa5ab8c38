"""Look a dataset over before anything is trained on it: what it is, what is wrong with it, whom it can serve.

One pass over the rows, in bounded memory. Faults of single rows are collected with their places; a file that cannot be
understood as a whole raises InputError.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.data.duplicates import Near, Seen, shingles
from engine.data.formats import Conversation, Message, Preference, Prompt, Question, detect
from engine.data.lengths import KEPT, TOKENIZED, Lengths, Sample, summarize, token_lengths
from engine.data.readings import AnyForm, Contrast, Reading, check_given, readings, rivals
from engine.data.rows import data_files, no_rows, scan_rows
from engine.data.served import Amounts, Served, forms_of, served
from recipes.errors import InputError, Problem, quoted
from recipes.methods import cards, stage_types

LOOKED_AT = 200
"""First rows that the form is told from."""
SHOWN = 20
"""Problems that are told one by one; the rest is counted."""
LOOKED_AT_CHARACTERS = 32 * 2**20
LONGEST_KEPT = 2**16
"""Characters of a turn that are kept for tokenizing; longer ones are cut there."""
MOST_COLUMNS = 1000
"""Names of columns that are counted; a file whose rows all have other names would fill the memory."""
LENGTH_BIAS = 0.75
LEAST_HELD_OUT = 20
DEFAULT_LIMIT = 1024

Told = Callable[[int, int, int], None]
"""Bytes read, bytes in all, rows."""


@dataclass
class Leakage:
    """How far a held-out file is in the training file."""

    heldout: int
    rows: int = 0
    prompts: int = 0
    near: int = 0
    compared: int = 0
    first: int | None = None


@dataclass
class Inspection:
    """Everything that was found. ``problems`` are faults that a run would refuse; ``warnings`` are not."""

    path: str
    files: int
    size: int
    rows: int = 0
    bad_rows: int = 0
    reading: Reading | None = None
    readings: list[Reading] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    columns: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    near_duplicates: int = 0
    near_compared: int = 0
    same_sides: int = 0
    unanswerable: int = 0
    with_steps: int = 0
    gap: float | None = None
    scored: int = 0
    chosen_longer: float | None = None
    characters: Lengths | None = None
    tokens: Lengths | None = None
    leakage: Leakage | None = None
    serves: list[Served] = field(default_factory=list)
    example: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class _Tally:
    """What is gathered row by row and summed up at the end."""

    seen: Seen = field(default_factory=Seen)
    near: Near = field(default_factory=Near)
    lengths: Sample = field(default_factory=lambda: Sample(KEPT))
    texts: Sample | None = None
    """Conversations to tokenize; None without a tokenizer."""
    longest: int = 0
    columns: Counter[str] = field(default_factory=Counter)
    first_duplicate: tuple[int, int] | None = None
    first_same: int | None = None
    score_sum: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")
    longer: int = 0
    pairs: int = 0
    unfinished: int = 0
    broken: int = 0


def inspect(
    path: Path,
    method: str | None = None,
    given: dict[str, str] | None = None,
    heldout: Path | None = None,
    model: str | None = None,
    limit: int | None = None,
    told: Told | None = None,
) -> Inspection:
    """Look over the data under ``path``.

    ``method`` narrows the readings to what it can use; ``given`` says which column plays which part; ``model`` is
    ``lab`` or a model's directory, for lengths in tokens; ``limit``: tokens after which a row is cut off.
    Raises InputError when the data cannot be understood, or in two ways equally well.
    """
    files = data_files(path)
    size = sum(file.stat().st_size for file in files)
    found, tally = Inspection(str(path), len(files), size), _Tally(texts=Sample(TOKENIZED) if model else None)
    limit = limit or _limit(method)
    forms = forms_of(cards()[method]) if method else None

    def passed(done: int) -> None:
        if told:
            told(done, size, found.rows)

    kept = _heldout(heldout, forms, given) if heldout else None
    sample: list[tuple[str, int, dict[str, Any]]] = []
    rows, characters = scan_rows(path, passed), 0
    for file, line, row in rows:
        if isinstance(row, Problem):
            _fault(found, row)
        else:
            sample.append((file, line, row))
            characters += len(str(row))
            if len(sample) >= LOOKED_AT or characters > LOOKED_AT_CHARACTERS:
                break
    if not sample:
        raise InputError(found.problems or [no_rows(path)])
    reading = _choose(found, sample, forms, given)

    def everything() -> Iterator[tuple[str, int, dict[str, Any] | Problem]]:
        yield from sample
        yield from rows

    for file, line, row in everything():
        if isinstance(row, Problem):
            _fault(found, row)
            continue
        if len(tally.columns) < MOST_COLUMNS:
            tally.columns.update(map(str, row))
        try:
            form = reading.read(row, file, line)
        except InputError as error:
            _fault(found, _told_better(error.problems[0], reading, row, file, line))
            continue
        found.rows += 1
        _count(found, tally, reading, row, form, line)
        if kept is not None:
            kept.compare(form, line)
    found.problems.sort(key=lambda problem: (problem.where, problem.line or 0))
    _sum_up(found, tally, limit)
    if kept is not None:
        found.leakage = kept.leakage
        _judge_leakage(found, path, heldout)
    if model and tally.texts and tally.texts.items:
        found.tokens = token_lengths(model, tally.texts.items, tally.texts.seen, limit)
    _judge_lengths(found)
    amounts = Amounts(
        found.rows - found.duplicates - found.same_sides, found.rows - found.duplicates - found.unanswerable,
        found.with_steps, found.gap,
    )  # fmt: skip
    found.serves = served(reading.form, amounts)
    return found


class Ambiguous(InputError):
    """Data that can be read in several ways equally well, or in none: ``readings`` are those ways, ``columns`` what the
    rows have."""

    def __init__(self, problems: list[Problem], readings: list[Reading], columns: list[str]) -> None:
        super().__init__(problems)
        self.readings, self.columns = readings, columns


def _limit(method: str | None) -> int:
    """The ``max_length`` that a stage of the method has by default."""
    stage = stage_types().get(method or "")
    fields = getattr(stage, "model_fields", {})
    return int(fields["max_length"].default) if "max_length" in fields else DEFAULT_LIMIT


# ---- what it is --------------------------------------------------------------------------------------------------------


def _choose(
    found: Inspection, sample: list[tuple[str, int, dict[str, Any]]], forms: tuple[str, ...] | None, given: dict[str, str] | None
) -> Reading:  # fmt: skip
    """The one reading of the data. Raises InputError when there is none, or more than one that is as good."""
    rows = [row for _, _, row in sample]
    file, line, first = sample[0]
    names = list(dict.fromkeys(str(name) for row in rows for name in row))
    if given:
        check_given(given, names, file)
    found.readings = readings(rows, forms, given)
    if not found.readings:
        raise Ambiguous([*found.problems, _no_reading(first, names, forms, file, line)], [], names)
    equal = rivals(found.readings)
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
    found.reading = found.readings[0]
    return found.reading


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


def _told_better(problem: Problem, reading: Reading, row: dict[str, Any], file: str, line: int) -> Problem:
    """A row's fault with what is probably behind it."""
    lacking = [name for name in reading.used if name not in row]
    if lacking:
        found = f"a row without it; it has {quoted(row) or 'no columns'}"
        accepted = f"{quoted(reading.columns.values())} in every row, as in the first: one kind of row a file"
        return Problem(file, line, lacking[0], found, accepted)
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


def _fault(found: Inspection, problem: Problem) -> None:
    found.bad_rows += 1
    if len(found.problems) < SHOWN:
        found.problems.append(problem)


# ---- row by row --------------------------------------------------------------------------------------------------------


def _count(found: Inspection, tally: _Tally, reading: Reading, row: dict[str, Any], form: AnyForm, line: int) -> None:
    turns = turns_of(form)
    text = "\n".join(turn["content"] for turn in turns)
    tally.lengths.add(len(text))
    tally.longest = max(tally.longest, len(text))
    if tally.texts is not None:
        tally.texts.add([cut(turn) for turn in longest_side(form)])
    tally.broken += "\ufffd" in text
    before = tally.seen.add(f"{type(form).__name__}\0{key_of(form)}", line)
    if before is not None:
        found.duplicates += 1
        tally.first_duplicate = tally.first_duplicate or (before, line)
    else:
        tally.near.add(text, line)
    if not found.example:
        found.example = example_of(form)
    if isinstance(form, Preference):
        _count_pair(found, tally, form, line, repeated=before is not None)
    elif isinstance(form, Conversation):
        tally.unfinished += form.messages[-1]["role"] != "assistant"
    elif isinstance(form, Question):
        found.unanswerable += form.answer is None
        steps = row.get(reading.columns.get("steps", ""))
        found.with_steps += isinstance(steps, list) and bool(steps)


def _count_pair(found: Inspection, tally: _Tally, pair: Preference, line: int, repeated: bool) -> None:
    if pair.chosen.strip() == pair.rejected.strip():
        found.same_sides += not repeated
        tally.first_same = tally.first_same or line
        return
    tally.pairs += 1
    tally.longer += len(pair.chosen) > len(pair.rejected)
    if pair.score_chosen is not None and pair.score_rejected is not None:
        found.scored += 1
        tally.score_sum += pair.score_chosen - pair.score_rejected
        tally.low = min(tally.low, pair.score_chosen, pair.score_rejected)
        tally.high = max(tally.high, pair.score_chosen, pair.score_rejected)


def turns_of(form: AnyForm) -> list[Message]:
    """All texts of a row as turns; of a pair both sides."""
    if isinstance(form, Conversation):
        return form.messages
    answers = {
        Question: lambda row: [row.answer] if row.answer is not None else [],
        Preference: lambda row: [row.chosen, row.rejected],
        Contrast: lambda row: [row.positive, row.negative],
        Prompt: lambda row: [],
    }[type(form)](form)
    return [*form.prompt, *({"role": "assistant", "content": text} for text in answers)]


def longest_side(form: AnyForm) -> list[Message]:
    """The conversation whose length counts against the limit: of a pair the longer side."""
    turns = turns_of(form)
    if isinstance(form, Preference | Contrast):
        return [*form.prompt, max(turns[-2:], key=lambda turn: len(turn["content"]))]
    return turns


def cut(turn: Message) -> Message:
    """A turn that is kept for tokenizing: far over any limit it makes no difference how far."""
    return turn if len(turn["content"]) <= LONGEST_KEPT else {**turn, "content": turn["content"][:LONGEST_KEPT]}


def example_of(form: AnyForm) -> list[dict[str, Any]]:
    """A row as it is trained on: ``trained`` marks the turns that the loss is taken over."""
    trained = not isinstance(form, Prompt | Question)
    sides = {Preference: ("chosen", "rejected"), Contrast: ("positive", "negative")}.get(type(form))
    turns = turns_of(form)
    shown = [
        {"role": turn["role"], "text": turn["content"], "trained": trained and turn["role"] == "assistant"}
        for turn in turns
    ]
    if isinstance(form, Question):
        for turn in shown[len(form.prompt) :]:
            turn["trained"] = True
    if sides:
        for turn, side in zip(shown[-2:], sides, strict=True):
            turn["role"] = side
    return shown


def key_of(form: AnyForm) -> str:
    """What makes two rows the same: all of their texts, but for spaces and the last full stop."""
    return json.dumps([turn["content"].strip().rstrip(".") for turn in turns_of(form)])


def prompt_key(form: AnyForm) -> str:
    if isinstance(form, Conversation):
        return json.dumps([turn["content"] for turn in form.messages if turn["role"] != "assistant"])
    return json.dumps([turn["content"] for turn in form.prompt])


# ---- held-out rows -----------------------------------------------------------------------------------------------------


class _Heldout:
    """The held-out rows, small enough to be kept as digests, and what of them the training rows repeat."""

    def __init__(self) -> None:
        self.rows: dict[bytes, int] = {}
        self.prompts: set[bytes] = set()
        self.leaked_rows: set[bytes] = set()
        self.leaked_prompts: set[bytes] = set()
        self.near = Near()
        self.leakage = Leakage(0)

    def add(self, form: AnyForm, line: int) -> None:
        self.leakage.heldout += 1
        self.rows.setdefault(_digest(key_of(form)), line)
        self.prompts.add(_digest(prompt_key(form)))
        self.near.add("\n".join(turn["content"] for turn in turns_of(form)), line)

    def compare(self, form: AnyForm, line: int) -> None:
        leak = self.leakage
        row, prompt = _digest(key_of(form)), _digest(prompt_key(form))
        if row in self.rows:
            self.leaked_rows.add(row)
            leak.first = min(leak.first or self.rows[row], self.rows[row])
        elif leak.compared < self.near.compared * 10 + 20_000:
            leak.compared += 1
            sketch = shingles("\n".join(turn["content"] for turn in turns_of(form)))
            leak.near += len(sketch) > 5 and self.near.like(sketch) is not None
        if prompt in self.prompts:
            self.leaked_prompts.add(prompt)
        leak.rows, leak.prompts = len(self.leaked_rows), len(self.leaked_prompts)


def _heldout(path: Path, forms: tuple[str, ...] | None, given: dict[str, str] | None) -> _Heldout:
    """Raises InputError for anything that is wrong with the held-out file."""
    kept, sample = _Heldout(), []
    rows = scan_rows(path)
    for file, line, row in rows:
        if isinstance(row, Problem):
            raise InputError([row])
        sample.append((file, line, row))
        if len(sample) >= LOOKED_AT:
            break
    if not sample:
        raise InputError([no_rows(path)])
    reading = _choose(Inspection(str(path), 1, 0), sample, forms, given)
    for file, line, row in sample:
        kept.add(reading.read(row, file, line), line)
    for file, line, item in rows:
        if isinstance(item, Problem):
            raise InputError([item])
        kept.add(reading.read(item, file, line), line)
    return kept


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


# ---- in the end --------------------------------------------------------------------------------------------------------


def _sum_up(found: Inspection, tally: _Tally, limit: int) -> None:
    found.columns = dict(tally.columns.most_common(40))
    found.near_duplicates, found.near_compared = tally.near.pairs, tally.near.compared
    if tally.lengths.items:
        found.characters = summarize(
            "characters", tally.lengths.items, tally.lengths.seen, tally.longest, limit, False, False
        )
    say = found.warnings.append
    if found.bad_rows > len(found.problems):
        say(f"{found.bad_rows - len(found.problems)} more rows are wrong in such ways")
    if tally.first_duplicate:
        first, again = tally.first_duplicate
        where = f" (line {again}" + (f" repeats line {first})" if first else ")")
        say(f"{found.duplicates} of {found.rows} rows occur more than once and are used once{where}")
    if tally.near.example:
        first, again = tally.near.example
        say(
            f"{found.near_duplicates} of the first {found.near_compared} longer rows are nearly another one "
            f"(line {again} is nearly line {first}): they count for less than they seem"
        )
    if found.same_sides:
        say(
            f"{found.same_sides} pairs have the same text as chosen and rejected (line {tally.first_same}) and are left out"
        )
    if found.unanswerable:
        say(f"{found.unanswerable} questions have no answer (null): only calibration and anti-hallucination use those")
    if tally.unfinished:
        say(
            f"{tally.unfinished} conversations do not end with the assistant: what follows its last turn is not trained on"
        )
    if tally.broken:
        say(f"{tally.broken} rows hold the sign for undecodable text (U+FFFD): an earlier conversion lost letters")
    if tally.pairs:
        _judge_pairs(found, tally)
    if found.reading and found.reading.form == "prompt":
        say("prompts alone: no method trains on them; they can be the general data of SFT (`replay: {source: …}`)")


def _judge_pairs(found: Inspection, tally: _Tally) -> None:
    found.chosen_longer = tally.longer / tally.pairs
    if found.scored:
        found.gap = tally.score_sum / found.scored / ((tally.high - tally.low) or 1.0)
        if found.gap < 0.15:
            found.warnings.append(f"the preference gap is {found.gap:.2f} (n {found.scored}); 0.15 or more is wanted")
    else:
        found.warnings.append("no scores: the preference gap is unknown (0.15 or more is wanted)")
    if not 1 - LENGTH_BIAS <= found.chosen_longer <= LENGTH_BIAS:
        longer = "chosen" if found.chosen_longer > 0.5 else "rejected"
        share = max(found.chosen_longer, 1 - found.chosen_longer)
        found.warnings.append(
            f"the {longer} side is the longer one in {share:.0%} of the pairs: length may be what is learnt"
        )


def _judge_lengths(found: Inspection) -> None:
    lengths = found.tokens or found.characters
    if lengths and lengths.truncated > 0:
        about = "" if lengths.exact else "about "
        rest = "" if lengths.exact else ", at 4 characters a token; --model says exactly"
        found.warnings.append(
            f"{about}{lengths.truncated:.1%} of the rows are longer than {lengths.limit} tokens and are cut off{rest}"
        )


def _judge_leakage(found: Inspection, path: Path, heldout: Path | None) -> None:
    leak = found.leakage
    if leak is None:
        return
    if leak.rows:
        said = f"{leak.rows} of {leak.heldout} held-out rows that are in {path} too"
        found.problems.append(
            Problem(str(heldout), leak.first, None, said, "rows that are not trained on: take them out of either file")
        )
    if leak.prompts > leak.rows:
        found.warnings.append(f"{leak.prompts - leak.rows} more held-out prompts are trained on with other answers")
    if leak.near:
        found.warnings.append(f"{leak.near} of {leak.compared} training rows are nearly a held-out row")
    if leak.heldout < LEAST_HELD_OUT:
        found.warnings.append(f"only {leak.heldout} held-out rows: the gates will be uncertain")
