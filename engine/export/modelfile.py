"""Ollama's Modelfile: the chat template in Go's language, the stops, the sampling.

The template is not translated but observed: conversations with marked messages are rendered, and what stands around the
marks is what the Go template must print. Other conversations then show whether that is the whole of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.errors import InputError, Problem

Messages = list[dict[str, str]]
Render = Callable[[Messages, bool], str | None]
"""``(messages, with the assistant's opening)`` -> text, None where the template refuses."""
SYSTEM, FIRST, REPLY, SECOND = "⟦system⟧", "⟦first⟧", "⟦reply⟧", "⟦second⟧"


@dataclass(frozen=True)
class Pieces:
    """What a template prints around each message."""

    start: str
    """Before everything, without a system message (a default one, as Qwen 2.5's, is in it)."""
    system: tuple[str, str] | None
    """Around a system message of its own, at the start; None where there is none."""
    folded: tuple[str, str] | None
    """Around a system message that is put into the first user's turn (Gemma), inside that turn."""
    user: tuple[str, str]
    assistant: tuple[str, str]
    opening: str
    """Of the turn that is to be written."""

    def render(self, messages: Sequence[dict[str, str]]) -> str:
        """What the Go template prints; the same rules, to be compared with the original."""
        system = next((one["content"] for one in messages if one["role"] == "system"), None)
        text = self.start if system is None or self.system is None else ""
        first = True
        for message in messages:
            if message["role"] == "system":
                text += self.system[0] + message["content"] + self.system[1] if self.system else ""
            elif message["role"] == "user":
                inside = self.folded[0] + system + self.folded[1] if first and system and self.folded else ""
                text += self.user[0] + inside + message["content"] + self.user[1]
                first = False
            else:
                text += self.assistant[0] + message["content"] + self.assistant[1]
        return text + self.opening

    def go(self) -> str:
        """The same as a Go template over Ollama's ``.System`` and ``.Messages``."""
        start = self.start
        if start and self.system is not None:
            start = f"{{{{ if not .System }}}}{start}{{{{ end }}}}"
        inside = ""
        if self.folded is not None:
            inside = f"{{{{ if and $.System (eq $first $i) }}}}{self.folded[0]}{{{{ $.System }}}}{self.folded[1]}{{{{ end }}}}"
        system = f"{self.system[0]}{{{{ .Content }}}}{self.system[1]}" if self.system else ""
        # The first turn that is the user's: 0, or 1 after a system message.
        first = "{{- $first := 0 }}{{- if .System }}{{- $first = 1 }}{{- end }}" if self.folded is not None else ""
        return (
            f"{first}{start}{{{{ range $i, $_ := .Messages }}}}"
            f'{{{{ if eq .Role "system" }}}}{system}'
            f'{{{{ else if eq .Role "user" }}}}{self.user[0]}{inside}{{{{ .Content }}}}{self.user[1]}'
            f'{{{{ else if eq .Role "assistant" }}}}{self.assistant[0]}{{{{ .Content }}}}{self.assistant[1]}'
            f"{{{{ end }}}}{{{{ end }}}}{self.opening}"
        )


def observe(render: Render, bos: str) -> Pieces:
    """Read the pieces off a chat template. Raises InputError where a template does more than surround messages."""
    one = _required(render, [{"role": "user", "content": FIRST}], True)
    closed = _required(render, [{"role": "user", "content": FIRST}], False)
    talk = [
        {"role": "user", "content": FIRST}, {"role": "assistant", "content": REPLY}, {"role": "user", "content": SECOND},
    ]  # fmt: skip
    two = _required(render, talk, False)
    one, closed, two = (text.removeprefix(bos) for text in (one, closed, two))
    if not one.startswith(closed) or any(mark not in two for mark in (FIRST, REPLY, SECOND)):
        raise _unlike("a template whose turns depend on each other")
    opening = one[len(closed) :]
    before, after = closed.split(FIRST)
    middle, rest = two.split(REPLY)[0].split(FIRST)[1], two.split(REPLY)[1]
    between, last = rest.split(SECOND)
    # What stands before a later user's turn ends like what stands before the first; what is more is the start.
    if not middle.startswith(last):
        raise _unlike("a template that closes a user's turn in several ways")
    assistant_before = middle[len(last) :]
    length = _common_end(before, between)
    # With a default system message both also end the turn before them, in the same way; that belongs to that turn.
    if last and before[len(before) - length :].startswith(last):
        length -= len(last)
    user_before = before[len(before) - length :]
    pieces = Pieces(
        start=before[: len(before) - length], system=None, folded=None, user=(user_before, last),
        assistant=(assistant_before, between[: len(between) - length]), opening=opening,
    )  # fmt: skip
    return _with_system(pieces, render, bos)


def _with_system(pieces: Pieces, render: Render, bos: str) -> Pieces:
    text = render([{"role": "system", "content": SYSTEM}, {"role": "user", "content": FIRST}], True)
    if text is None or SYSTEM not in text or FIRST not in text:
        return pieces
    text = text.removeprefix(bos)
    before, rest = text.split(SYSTEM)
    between = rest.split(FIRST)[0]
    parts = vars(pieces)
    if before.endswith(pieces.user[0]) and pieces.user[0] and not between.endswith(pieces.user[0]):
        return Pieces(**{**parts, "folded": ("", between)})
    if not between.endswith(pieces.user[0]):
        raise _unlike("a template that treats a system message in its own way")
    closing = between[: len(between) - len(pieces.user[0])] if pieces.user[0] else between
    return Pieces(**{**parts, "system": (before, closing)})


def confirm(pieces: Pieces, render: Render, bos: str, conversations: Sequence[Messages]) -> None:
    """Raises InputError if the pieces print any of the conversations otherwise than the template does."""
    for messages in conversations:
        wanted = render(messages, True)
        if wanted is None or (pieces.system is None and pieces.folded is None and messages[0]["role"] == "system"):
            continue
        if pieces.render(messages) != wanted.removeprefix(bos):
            raise _unlike("a template that does more than surround messages")


def modelfile(pieces: Pieces, stops: Sequence[str], parameters: dict[str, Any], gguf: str) -> str:
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{pieces.go()}"""']
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    lines += [f"PARAMETER {name} {value}" for name, value in parameters.items()]
    return "\n".join(lines) + "\n"


def write_modelfile(
    out: Path, template: str, special: dict[str, str], stops: Sequence[str], config: dict[str, Any]
) -> None:
    """``Modelfile`` beside ``model.gguf``. ``special``: the tokenizer's bos and eos as text, which templates print."""
    render = renderer(template, special)
    bos = special.get("bos_token", "")
    pieces = observe(render, bos)
    confirm(pieces, render, bos, CONVERSATIONS)
    generation = {name: config[name] for name in ("temperature", "top_p", "top_k") if config.get(name) is not None}
    (out / "Modelfile").write_text(modelfile(pieces, stops, generation, "model.gguf"), encoding="utf-8")


def renderer(template: str, special: dict[str, str]) -> Render:
    """The chat template as transformers renders it (sandboxed, blocks trimmed), without transformers."""
    from jinja2.exceptions import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals.update(raise_exception=refuse, strftime_now=lambda form: "")
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False)
    compiled = environment.from_string(template)

    def render(messages: Messages, opening: bool) -> str | None:
        try:
            return compiled.render(messages=messages, add_generation_prompt=opening, **special)
        except TemplateError:
            return None

    return render


CONVERSATIONS: list[Messages] = [
    [{"role": "user", "content": "How do you do?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How do you do?"}],
    [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "One."}, {"role": "user", "content": "Two?"}],
    [
        {"role": "system", "content": "Count."}, {"role": "user", "content": "One?"}, {"role": "assistant", "content": "One."},
        {"role": "user", "content": "Two?"}, {"role": "assistant", "content": "Two."}, {"role": "user", "content": "Three?"},
    ],
]  # fmt: skip


def _required(render: Render, messages: Messages, opening: bool) -> str:
    text = render(messages, opening)
    if text is None:
        raise _unlike("a template that refuses an ordinary conversation")
    return text


def _unlike(found: str) -> InputError:
    accepted = "one that surrounds each message, as Ollama's can; `--to gguf` keeps the original template"
    return InputError([Problem("chat template", None, None, found, accepted)])


def _common_end(first: str, second: str) -> int:
    length = 0
    while length < min(len(first), len(second)) and first[-1 - length] == second[-1 - length]:
        length += 1
    return length
