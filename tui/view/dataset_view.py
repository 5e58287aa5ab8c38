"""What an inspection shows of a dataset, as lines with styles: counts, lengths, faults, the example, whom it serves."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

from recipes.errors import Problem

MIB = 2**20
VERDICTS = {
    "ready": ("✓", "+", "$success"), "thin": ("▲", "!", "$warning"), "no": ("✗", "x", "$error"),
    "none needed": ("·", ".", ""),
}  # fmt: skip


@dataclass(frozen=True)
class Line:
    """Parts of ``(text, style)``; ``indent``: where it goes on when it is wrapped."""

    parts: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.parts)


def line(text: str = "", style: str = "") -> Line:
    return Line(((text, style),))


def report(found: dict[str, Any], method: str | None, width: int, plain: bool = False) -> list[Line]:
    """Everything but the mapping, worst things first."""
    lines = faults([Problem(**one) for one in found["problems"]], width)
    lines += warnings(found["warnings"], width, plain)
    if lines:
        lines.append(line())
    lines += counts(found)
    if found["example"]:
        lines += [line(), *example(found["example"], width, plain)]
    return [*lines, line(), *serves(found, method, width, plain)]


def counts(found: dict[str, Any]) -> list[Line]:
    bad = f", {found['bad_rows']} that cannot be used" if found["bad_rows"] else ""
    files = f" in {found['files']} files" if found["files"] > 1 else ""
    size = found["size"] / MIB
    lines = [_fact("rows", f"{found['rows']}{bad}{files}, {size:.1f} MiB")]
    for name in ("characters", "tokens"):
        if found[name]:
            one = found[name]
            marks = ", ".join(f"{key} {value}" for key, value in one["quantiles"].items())
            cut = f"; {one['truncated']:.1%} over {one['limit']} tokens" if one["truncated"] > 0 else ""
            template = " with the chat template" if one["template"] else ""
            lines.append(
                _fact(name, f"mean {one['mean']:.0f}, {marks}, longest {one['longest']} (n {one['n']}{template}){cut}")
            )
    if found["gap"] is not None:
        lines.append(
            _fact("gap", f"{found['gap']:.2f} (scores scaled to 0-1, n {found['scored']}; 0.15 or more is wanted)")
        )
    if found["endings"]:
        lines.append(_fact("ends", endings_words(found["endings"])))
    if found["verifiability"]:
        lines.append(_fact("verifiable", verifiable_words(found["verifiability"])))
    if found["leakage"]:
        leak = found["leakage"]
        lines.append(
            _fact(
                "held out",
                f"{leak['heldout']} rows; {leak['rows']} of them and {leak['prompts']} prompts are trained on",
            )
        )
    unused = [name for name in found["columns"] if name not in (found["reading"] or {}).get("columns", {}).values()]
    if unused:
        lines.append(_fact("not used", ", ".join(unused[:12])))
    return lines


def endings_words(one: dict[str, Any]) -> str:
    """How the model's template closes replies."""
    stops = ", ".join(f"`{stop}`" for stop in one["stops"]) or "no end token"
    by = "the chat template" if one["template"] else "the plain template (the model has none)"
    return f"{stops} after the reply in {one['ended']} of {one['n']} rows, by {by}"


def verifiable_words(one: dict[str, Any]) -> str:
    return f"{one['share']:.0%} by `{one['kind']}` (n {one['n']}; more than 80 % is wanted)"


def _fact(name: str, words: str) -> Line:
    return Line(((f"{name:<11}", "dim"), (words, "")))


def example(turns: list[dict[str, Any]], width: int, plain: bool = False) -> list[Line]:
    """The loss mask on a real row: what is trained on is coloured and marked."""
    mark = ">" if plain else "▌"
    lines = [
        Line(
            (
                ("a row as it is trained on; ", "dim"),
                (f"{mark} coloured", "$success"),
                (": the loss is taken over it", "dim"),
            )
        )
    ]
    for turn in turns:
        words = " ".join(turn["text"].split())
        words = words if len(words) <= 400 else words[:397] + "..."
        style = "$success" if turn["trained"] else "dim"
        for number, part in enumerate(textwrap.wrap(words, max(20, width - 13)) or [""]):
            role = turn["role"] if not number else ""
            lines.append(Line(((f"{role:<10}", "dim"), (f"{mark if turn['trained'] else ' '} ", style), (part, style))))
    return lines


def serves(found: dict[str, Any], method: str | None, width: int, plain: bool = False) -> list[Line]:
    """Which methods the data can serve, the wanted one first, and what is missing for the others."""
    lines = [line("which methods it serves, and what is missing for the others", "dim")]
    for one in sorted(found["serves"], key=lambda one: one["method"] != method):
        sign = VERDICTS[one["verdict"]]
        name = one["method"].replace("_", "-")
        wrapped = textwrap.wrap(one["why"], max(20, width - 32)) or [""]
        head = (
            (f"{sign[1] if plain else sign[0]} ", sign[2]), (f"{name:<19}", "bold" if one["method"] == method else ""),
            (f"{one['verdict']:<12}", sign[2]),
        )  # fmt: skip
        lines.append(Line((*head, (wrapped[0], ""))))
        lines += [line(f"{'':<33}{more}") for more in wrapped[1:]]
    return lines


def faults(problems: list[Problem], width: int) -> list[Line]:
    """Each with its place, what was found, and the mend."""
    lines = []
    for one in problems:
        place = (
            one.where.rpartition("/")[2]
            + (f", line {one.line}" if one.line else "")
            + (f", `{one.field}`" if one.field else "")
        )
        lines.append(Line(((f"{place}: ", "bold $error"), ("", ""))))
        for name, words in (
            ("found ", one.found),
            ("wanted", one.accepted + (f" (did you mean `{one.nearest}`?)" if one.nearest else "")),
        ):
            for number, part in enumerate(textwrap.wrap(words, max(20, width - 10)) or [""]):
                lines.append(Line(((f"  {name if not number else '':<7}", "dim"), (part, ""))))
    return lines


def warnings(texts: list[str], width: int, plain: bool = False) -> list[Line]:
    lines = []
    for text in texts:
        for number, part in enumerate(textwrap.wrap(text, max(20, width - 3)) or [""]):
            sign = ("!" if plain else "▲") if not number else " "
            lines.append(Line(((f"{sign} ", "$warning"), (part, ""))))
    return lines
