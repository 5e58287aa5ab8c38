"""What stands in the monitor's tabs, as text: gates, samples, alerts, forecast against actual. No widgets in here."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from textual.content import Content

from engine.report import clock, duration, gate_value, limit_words
from engine.runs.events import AlertEvent, SampleEvent
from tui.view.answers import Answers, answers_over_time
from tui.view.conditions import Condition
from tui.view.event_words import sample_words
from tui.view.plan import Band, Planned
from tui.view.run_view import RunView
from tui.words import ascii_words

SIDE_BY_SIDE = 72
"""Cells from which on two answers stand beside each other."""


def gates_pane(view: RunView, width: int, plain: bool) -> Content:
    good, bad, wait = ("+", "!", ".") if plain else ("✓", "✗", "·")
    methods = max(len(stage.method) for stage in view.rail)
    lines = []
    for index, gate in reversed(view.gates):
        style = "$text-success" if gate.passed else "$text-error"
        value, limit, detail = gate_value(gate), limit_words(gate), gate.detail
        if plain:
            value, limit, detail = (ascii_words(text) for text in (value, limit, detail))
        lines.append(
            Content.assemble(
                (f"{good if gate.passed else bad} ", f"bold {style}"),
                (f"{view.rail[index].method:<{methods}} ", "dim"),
                f"{gate.name:<20} ",
                (f"{value:>9} ", f"bold {style}"),
                f"{limit:<18} ",
                (f"n {gate.n:<6} {detail}", "dim"),
            )
        )
    gap = " " * 10 if width >= SIDE_BY_SIDE else ""  # where the others have their value
    undecided = [
        f"{name:<20} {gap}{ascii_words(limit) if plain else limit:<18} {words}"
        for name, limit, words in view.waiting_gates
    ]
    waiting = [Content.styled(f"{wait} {' ' * (methods + 1) if gap else ''}{line}", "dim") for line in undecided]
    lines = [line.truncate(width, ellipsis=True) for line in [*waiting, *lines]]
    return Content("\n").join(lines) if lines else Content.styled("no gates", "dim")


# ---- samples -----------------------------------------------------------------------------------------------------------


def samples_pane(samples: Sequence[SampleEvent], width: int, back: int) -> Content:
    """Each prompt with what was answered earlier beside what is answered now."""
    answers = answers_over_time(samples, back)
    if not answers:
        return Content.styled("no samples yet", "dim")
    several = max(len(one.steps) for one in answers) > 2
    hint = [Content.styled("e: beside them, another earlier answer", "dim")] if several else []
    return Content("\n\n").join([*hint, *(_answers(one, width) for one in answers)])


def _answers(one: Answers, width: int) -> Content:
    prompt = Content.styled(one.prompt, "bold")
    given = sample_words(one.now)
    now = f"step {one.now.step}" + (f"  {given}" if given else "")
    if one.earlier is None:
        return Content.assemble((f"{now}  ", "dim"), prompt, f"\n  {one.now.completion}")
    before = f"step {one.earlier.step}" + (f"  {words}" if (words := sample_words(one.earlier)) else "")
    if width < SIDE_BY_SIDE:
        return Content.assemble(
            prompt, "\n  ", (f"{before}  ", "dim"), one.earlier.completion,
            "\n  ", (f"{now}  ", "$text-accent"), one.now.completion,
        )  # fmt: skip
    column = (width - 3) // 2
    left = [before, *_wrapped(one.earlier.completion, column)]
    right = [now, *_wrapped(one.now.completion, column)]
    rows = max(len(left), len(right))
    left += [""] * (rows - len(left))
    right += [""] * (rows - len(right))
    lines = [prompt]
    for number, (old, new) in enumerate(zip(left, right, strict=True)):
        styles = ("dim", "$text-accent") if number == 0 else ("dim", "")
        lines.append(
            Content.assemble((old, styles[0])).pad_right(max(0, column - Content(old).cell_length))
            + Content("   ")
            + Content.assemble((new, styles[1]))
        )
    return Content("\n").join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    return [line for part in text.splitlines() or [""] for line in textwrap.wrap(part, width) or [""]]


# ---- alerts ------------------------------------------------------------------------------------------------------------

LEVELS = {"warning": "$text-warning", "error": "$text-error"}


def attention(conditions: Sequence[Condition], plain: bool) -> Content:
    """The most pressing in one line; how many more there are."""
    if not conditions:
        return Content("")
    first, more = conditions[0], len(conditions) - 1
    sign = "!" if plain else "⚠"
    others = f" (and {more} more: press 3)" if more else ""
    return Content.assemble(
        (f"{sign} {_plain(first.text, plain)}{others}: ", "bold $text-warning"), _plain(first.mend, plain)
    )


def alerts_pane(conditions: Sequence[Condition], alerts: Sequence[AlertEvent], width: int, plain: bool) -> Content:
    """What holds now with what to do about it, then what was told before, newest first."""
    arrow = ">" if plain else "→"
    lines = []
    for one in conditions:
        lines += _hanging("now", "bold $text-warning", _plain(one.text, plain), width, "bold")
        lines += _hanging("", "", f"{arrow} {_plain(one.mend, plain)}", width)
    for alert in reversed(alerts):
        label = f"{clock(alert.time)[11:]} {alert.level}"
        lines += _hanging(label, LEVELS.get(alert.level, "dim"), alert.text, width)
    return Content("\n").join(lines) if lines else Content.styled("no alerts", "dim")


def _hanging(label: str, style: str, text: str, width: int, text_style: str = "") -> list[Content]:
    """The text beside its label, its further lines below its first; on a narrow screen below the label."""
    indent = 17 if width >= SIDE_BY_SIDE else 9
    rows = _wrapped(text, max(20, width - indent))
    if len(label) >= indent:
        return [Content.styled(label, style), *(Content.styled(" " * indent + row, text_style) for row in rows)]
    first = Content.assemble((f"{label:<{indent}}", style), (rows[0], text_style))
    return [first, *(Content.styled(" " * indent + row, text_style) for row in rows[1:])]


def serious(conditions: Sequence[Condition], alerts: Sequence[AlertEvent]) -> int:
    """What the tab's label counts: each kind of trouble that holds now, and everything that was told and was no news."""
    holding = {one.code for one in conditions}
    return len(conditions) + sum(alert.level != "info" and alert.code not in holding for alert in alerts)


def _plain(text: str, plain: bool) -> str:
    return ascii_words(text) if plain else text


# ---- forecast against actual ---------------------------------------------------------------------------------------------


def forecast_pane(planned: Sequence[Planned], width: int, plain: bool) -> Content:
    """A line for memory and one for time of every stage; on a narrow screen its name above them."""
    wide = width >= SIDE_BY_SIDE
    names = max((len(f"{stage.index + 1} {stage.method}") for stage in planned), default=0) + 2
    lines = []
    for stage in planned:
        name = f"{stage.index + 1} {stage.method}"
        if not wide:
            lines.append(Content.styled(name, "bold"))
        first, second = (f"{name:<{names}}", " " * names) if wide else ("  ", "  ")
        memory, time = stage.memory, stage.seconds
        said = _range(memory, lambda value: f"{value:,.0f}", " MiB")
        actual = "–" if memory.actual is None else f"{memory.actual:,.0f} MiB"
        lines.append(_line(first, "memory", said, actual, memory, "", wide))
        actual = "–" if time.actual is None else duration(time.actual)
        if stage.expected is not None:
            actual += f" of {duration(stage.expected)}"
        judged = Band(time.low, time.high, stage.expected) if stage.expected is not None else time
        about = ", ".join(part for part in (stage.basis, stage.note) if part)
        lines.append(_line(second, "time", _range(time, duration, ""), actual, judged, about, wide))
    if not any(stage.memory.low is not None or stage.seconds.low is not None for stage in planned):
        lines.append(Content.styled("no forecast in this run's log: a stage writes it when it begins", "dim"))
    lines = [line.truncate(width, ellipsis=True) for line in lines]
    text = Content("\n").join(lines)
    return Content(ascii_words(text.plain)) if plain else text


def _range(band: Band, words: Callable[[float], str], unit: str) -> str:
    if band.low is None or band.high is None:
        return "–"
    return f"{words(band.low)} to {words(band.high)}{unit}"


def _line(name: str, what: str, forecast: str, actual: str, judged: Band, about: str, wide: bool) -> Content:
    word = judged.word
    style = "$text-success" if word == "as forecast" else "$text-warning" if word.endswith("over") else "dim"
    first, second = (22, 25) if wide else (20, 0)
    return Content.assemble(
        (name, "bold"), (f"{what:<8}", "dim"), f"{forecast:<{first}} ", (f"{actual:<{second}} ", "bold"),
        (f"{word}  ", style), (about, "dim"),
    )  # fmt: skip
