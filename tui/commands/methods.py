"""methods, choose: what the methods are, and which one is meant."""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from recipes.comparison import (
    Table,
    all_cards,
    chart_lines,
    memory_words,
    recommended_words,
    short_title,
    tables,
    time_words,
)
from recipes.errors import InputError, Problem, nearest_word, quoted
from recipes.flowchart import QUESTIONS, START, Answer, Leaf, Question, answer_of, follow, path_to, walk
from recipes.load import library, load_recipe
from recipes.methods import cards, stage_types
from recipes.methods.card import Card
from recipes.strategies import STRATEGIES, Strategy, strategies_for
from recipes.use_cases import USE_CASES, UseCase, use_case
from tui.words import ascii_words, unicode_terminal


def methods(options: argparse.Namespace) -> int:
    """The comparison of all methods, or the card of one."""
    if options.method:
        card = find_card(options.method)
        if options.json:
            print(json.dumps(card_to_json(card)))
        else:
            _print(card_lines(card))
        return 0
    if options.json:
        print(json.dumps(comparison_to_json()))
        return 0
    for table in tables():
        _print([*table_lines(table), ""], wrap=False)
    _print(["Complexity and capability", "", *chart_lines(ascii_only=not unicode_terminal()), ""])
    _print([*table_lines(use_case_table()), ""], wrap=False)
    _print(["Combined strategies", ""])
    for strategy in STRATEGIES:
        _print(strategy_lines(strategy))
    _print(["", "`finetune-tui methods METHOD` prints a card; `finetune-tui choose` asks what you want to reach"])
    return 0


def find_card(word: str) -> Card:
    """By name (``_`` and ``-`` alike) or title. Raises InputError with the nearest."""
    clean = word.strip().lower().replace("-", "_")
    for name, card in cards().items():
        if clean in (name, short_title(card).lower().replace("-", "_")):
            return card
    names = [name.replace("_", "-") for name in cards()]
    near = nearest_word(clean.replace("_", "-"), names)
    raise InputError([Problem("METHOD", None, None, f"`{word}`", quoted(names), near)])


def card_to_json(card: Card) -> dict[str, Any]:
    way = path_to(card.name)
    return asdict(card) | {
        "runs_in_this_version": card.name in stage_types(),
        "answers": [answer.key for answer in way] if way else None,
        "strategies": [s.name for s in STRATEGIES if card.name in (step.method for step in s.steps)],
    }


def comparison_to_json() -> dict[str, Any]:
    return {
        "methods": {card.name: card_to_json(card) for card in all_cards()},
        "use_cases": [asdict(case) for case in USE_CASES],
        "strategies": [asdict(strategy) for strategy in STRATEGIES],
        "flowchart": {key: asdict(question) for key, question in QUESTIONS.items()},
    }


def card_lines(card: Card) -> list[str]:
    """A card in words."""
    needs = [
        word for needed, word in (
            (card.requires_reference_model, "a reference model"), (card.requires_reward_model, "a reward model"),
            (card.requires_verification, "verification logic"),
        ) if needed
    ]  # fmt: skip
    minimum = (
        f"at least {card.data.minimum}, {recommended_words(card)} recommended" if card.data.minimum else "none needed"
    )
    lines = [card.title, f"  {card.purpose}", "", "  Strengths"]
    lines += [f"    + {text}" for text in card.strengths]
    lines += ["  Weaknesses", *(f"    - {text}" for text in card.weaknesses)]
    lines += [
        f"  Best for     {', '.join(card.best_for)}",
        f"  Needs        {', '.join(needs) or 'no other model and no verification'}",
        f"  Data         {card.data.kind}: {minimum}",
        f"  Quality      {card.data.quality}",
        f"  Time         {time_words(card)} ({card.time.notes}; 1B model, consumer GPU)",
        f"  Memory       {memory_words(card)} (1B model, 4-bit)",
        f"  Metrics      {', '.join(card.metrics)}",
        f"  Targets      {', '.join(card.targets)}",
        f"  Inference    overhead: {card.inference_overhead.lower()}",
        f"  Undo         {'reversible' if card.reversible else 'not reversible'}, "
        f"{'composable' if card.composable else 'not composable'}",
        f"  Backends     {card.backends}",
    ]  # fmt: skip
    if card.gates:
        lines += ["", "  Gates of a run (unless its recipe says otherwise)"]
    for name, gate in card.gates.items():
        if not gate.default:
            continue
        limits = [f"≥ {gate.minimum:g}"] if gate.minimum is not None else []
        limits += [f"≤ {gate.maximum:g}"] if gate.maximum is not None else []
        lines.append(f"    {name:<22} {' and '.join(limits):<18} {gate.meaning}")
    return [*lines, "", f"  {start_words(card.name)}"]


def start_words(method: str) -> str:
    """The command that runs a method, or that this version has none."""
    return command_words(method.replace("_", "-"), [method])


def command_words(recipe: str, names: Sequence[str]) -> str:
    """The command for a library recipe with a model and data of one's own in place of the lab's.

    Stages that have no single source of data (what they add to a model is searched for) are shown on the lab. A
    method's recipe may have a cold start before it, which then has data of its own.
    """
    if recipe not in library() or not set(names) <= set(stage_types()):
        return f"this version cannot run {recipe} yet"
    stages = load_recipe(recipe).recipe.stages
    if [stage.method for stage in stages][-len(names) :] != list(names):
        return f"this version cannot run all of {recipe} yet"
    if not all(hasattr(stage, "data") for stage in stages):
        return f"finetune-tui run {recipe}"
    words = [f"finetune-tui run {recipe} --set model=MODEL"]
    for index, stage in enumerate(stages):
        words.append(f"--set stages.{index}.data.source=/PATH/TO/FILE")
        if stage.data.heldout:  # the lab's: without it a share of the file is held out
            words.append(f"--set stages.{index}.data.heldout=null")
        if getattr(stage, "judge", None):
            words.append(f"--set stages.{index}.judge=null")
    return " ".join(words)


def table_lines(table: Table, width: int | None = None) -> list[str]:
    """A table in columns as wide as what stands in them; those with most to give wrap, but no word is broken."""
    most = width or _width()
    rows = (table.heading, *table.rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.heading))]
    least = [max(len(word) for row in rows for word in row[column].split() or [""]) for column in range(len(widths))]
    while sum(widths) + 2 * (len(widths) - 1) > most and widths != least:
        spare = [width - word for width, word in zip(widths, least, strict=True)]
        widths[spare.index(max(spare))] -= 1
    lines = [table.title, ""]
    for number, row in enumerate(rows):
        cells = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, widths, strict=True)]
        for line in itertools.zip_longest(*cells, fillvalue=""):
            lines.append("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())
        if number == 0:
            lines.append("  ".join("-" * width for width in widths))
    return lines


def _width() -> int:
    return shutil.get_terminal_size((120, 24)).columns


def use_case_table() -> Table:
    heading = ("Use case", "Primary method", "Alternative", "Notes")
    rows = tuple((case.name, titles(case.primary), titles(case.alternative) or "-", case.note) for case in USE_CASES)
    return Table("Use cases", heading, rows, tuple(case.key for case in USE_CASES))


def titles(names: Sequence[str]) -> str:
    return " + ".join(short_title(cards()[name]) for name in names)


def strategy_lines(strategy: Strategy) -> list[str]:
    low, high = strategy.hours
    during = f" (during {short_title(cards()[strategy.peak_during])})" if strategy.peak_during else ""
    steps = " → ".join(f"{short_title(cards()[step.method])} ({step.purpose})" for step in strategy.steps)
    return [
        f"{strategy.title}: {strategy.use_case}",
        f"    {steps}",
        f"    {low}-{high} hours in total, {strategy.peak_gb} GB peak{during} (1B model, 4-bit)",
        f"    {command_words(strategy.name, [step.method for step in strategy.steps])}",
    ]


# ---- choose ------------------------------------------------------------------------------------------------------------


def choose(options: argparse.Namespace) -> int:
    """Walk the flowchart, in questions or by ``--answers``, or start from a use case."""
    if options.use_case:
        return _by_use_case(use_case(options.use_case), options)
    if options.answers is not None:
        words = [word for word in options.answers.split(",") if word.strip()]
        return _ended(words, options)
    if not sys.stdin.isatty():
        accepted = "`--answers`, such as `--answers preferences,constrained`"
        raise InputError([Problem("choose", None, None, "no terminal to ask on", accepted)])
    answers = ask()
    return 0 if answers is None else _ended([answer.key for answer in answers], options)


def ask() -> list[Answer] | None:
    """Question by question on the terminal; ``b`` goes back, ``q`` gives up (None)."""
    way: list[Answer] = []
    while True:
        here = walk([answer.key for answer in way])
        if isinstance(here, Leaf):
            return way
        _print(["", *question_lines(here, bool(way))], sys.stderr)
        try:
            word = input("> ").strip()
        except EOFError:
            return None
        if word.lower() in ("q", "quit"):
            return None
        if word.lower() in ("b", "back"):
            way = way[:-1]
        elif word == "?":
            _print([here.why], sys.stderr)
        elif word:
            try:
                way.append(answer_of(here, word))
            except InputError as error:
                near = error.problems[0].nearest
                hint = f"did you mean `{near}`?" if near else error.problems[0].accepted
                _print([f"`{word}` is no answer: {hint}"], sys.stderr)


def question_lines(question: Question, can_go_back: bool) -> list[str]:
    lines = [question.text]
    for number, answer in enumerate(question.answers, start=1):
        hint = f"  {answer.hint}" if answer.hint else ""
        lines.append(f"  {number}. {answer.text} [{answer.key}]{hint}")
    return [*lines, f"(a number or a word; ? why this is asked{', b back' if can_go_back else ''}, q quit)"]


def _ended(words: Sequence[str], options: argparse.Namespace) -> int:
    """Say where the answers lead. Raises InputError when they stop before a leaf."""
    there = walk(words)
    if isinstance(there, Question):
        keys = quoted(answer.key for answer in there.answers)
        found = f"{len(words)} answers, which leave open: {there.text}"
        raise InputError([Problem("answers", None, there.key, found, f"one more: {keys}")])
    taken: list[Answer] = []
    here: Question | Leaf = QUESTIONS[START]
    for word in words:
        assert isinstance(here, Question)
        taken.append(answer_of(here, word))
        here = follow(taken[-1])
    strategies = strategies_for(taken[0].key, there.method)
    if options.json:
        print(json.dumps({
            "answers": [answer.key for answer in taken], "method": there.method, "because": there.because,
            "notice": there.notice, "command": start_words(there.method),
            "strategies": [strategy.name for strategy in strategies],
        }))  # fmt: skip
        return 0
    way = " > ".join(answer.text for answer in taken)
    _print([f"{way} > {short_title(cards()[there.method])}: {there.because}", ""])
    _print(card_lines(cards()[there.method]))
    if there.notice:
        _print(["", there.notice])
    if strategies:
        _print(["", "Combined with others:"])
        for strategy in strategies:
            _print(["", *strategy_lines(strategy)])
    return 0


def _by_use_case(case: UseCase, options: argparse.Namespace) -> int:
    method = case.primary[-1]
    if options.json:
        print(json.dumps(asdict(case) | {"method": method, "command": start_words(method)}))
        return 0
    _print([f"{case.name}: {titles(case.primary)} ({case.note})"])
    if case.alternative:
        _print([f"alternative: {titles(case.alternative)}"])
    _print(["", *card_lines(cards()[method])])
    leaf = next((walk([answer.key for answer in way]) for way in [path_to(method)] if way), None)
    if isinstance(leaf, Leaf) and leaf.notice:
        _print(["", leaf.notice])
    return 0


def _print(lines: Sequence[str], out: Any = None, wrap: bool = True) -> None:
    """Lines that are too long for the terminal go on below, one step further in; tables have wrapped already."""
    for line in lines:
        text = line if unicode_terminal() else ascii_words(line)
        if wrap and len(text) > _width():
            inner = " " * (len(text) - len(text.lstrip()) + 2)
            text = textwrap.fill(text, _width(), subsequent_indent=inner, drop_whitespace=True)
        print(text, file=out or sys.stdout)
