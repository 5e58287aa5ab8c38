"""The forms that a row can have, and how a dataset's form is recognised from its columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from recipes.errors import InputError, Problem, nearest_pair, nearest_word, quoted

Message = dict[str, str]


@dataclass(frozen=True)
class Conversation:
    """A whole conversation with at least one assistant turn."""

    messages: list[Message]


@dataclass(frozen=True)
class Question:
    """A prompt with its right answer; ``answer`` is None where there is none."""

    prompt: list[Message]
    answer: str | None


@dataclass(frozen=True)
class Preference:
    """Two completions of one prompt; scores as the dataset gives them, or None."""

    prompt: list[Message]
    chosen: str
    rejected: str
    score_chosen: float | None = None
    score_rejected: float | None = None


@dataclass(frozen=True)
class Prompt:
    prompt: list[Message]


@dataclass(frozen=True)
class Contrast:
    """Two completions of one prompt that differ in the behaviour a vector is to steer."""

    prompt: list[Message]
    positive: str
    negative: str


Form = Conversation | Question | Preference | Prompt | Contrast
FORMS = {
    "conversation": Conversation, "question": Question, "preference": Preference, "prompt": Prompt, "contrast": Contrast,
}  # fmt: skip
ROLES = {
    "user": "user", "human": "user", "prompter": "user", "assistant": "assistant", "gpt": "assistant",
    "model": "assistant", "bot": "assistant", "system": "system", "tool": "tool",
}  # fmt: skip

LAYOUTS: dict[str, tuple[tuple[str, ...], str]] = {
    "preference": (("prompt", "chosen", "rejected"), "preference"),
    "preference, whole conversations": (("chosen", "rejected"), "preference"),
    "contrast": (("prompt", "positive", "negative"), "contrast"),
    "messages": (("messages",), "conversation"),
    "conversations": (("conversations",), "conversation"),
    "prompt and completion": (("prompt", "completion"), "conversation"),
    "prompt and answer": (("prompt", "answer"), "question"),
    "question and answer": (("question", "answer"), "question"),
    "instruction and output": (("instruction", "output"), "conversation"),
    "prompts": (("prompt",), "prompt"),
}
"""Layout -> (columns it needs, form it becomes). The first whose columns are all there is taken, so the richer ones
stand before those that need a part of their columns."""


@dataclass(frozen=True)
class Layout:
    name: str
    form: str


def detect(
    row: dict[str, Any], wanted: tuple[str, ...], where: str, line: int, columns: dict[str, str] | None
) -> Layout:
    """The layout of a dataset from its first row. ``wanted`` are the forms that the method can use.

    Raises InputError naming the columns found, those accepted, and the nearest to one that is missing.
    """
    have = set(renamed(row, columns, where, line))
    for name, (needs, form) in LAYOUTS.items():
        if form in wanted and set(needs) <= have:
            return Layout(name, form)
    layouts = [needs for needs, form in LAYOUTS.values() if form in wanted]
    missing = sorted({name for needs in layouts for name in needs} - have)
    near = nearest_pair(have, missing)
    accepted = " or ".join("+".join(f"`{name}`" for name in needs) for needs in layouts)
    accepted += ", or `columns:` in the recipe to say which of yours is which, such as `columns: {prompt: your_column}`"
    raise InputError([Problem(where, line, None, f"the columns {quoted(sorted(have))}", accepted, near)])


def convert(row: dict[str, Any], layout: Layout, where: str, line: int, columns: dict[str, str] | None = None) -> Form:
    """One row in its normal form. Raises InputError naming the field that is missing, empty or of the wrong type."""
    row = renamed(row, columns, where, line)
    return CONVERTERS[layout.name](Reader(row, where, line))


def to_json(form: Form) -> dict[str, Any]:
    return asdict(form)


def renamed(row: dict[str, Any], columns: dict[str, str] | None, where: str, line: int) -> dict[str, Any]:
    if not columns:
        return row
    for ours, theirs in columns.items():
        if theirs not in row:
            raise InputError([
                Problem(
                    where, line, f"columns.{ours}", f"no column `{theirs}`", quoted(sorted(map(str, row))),
                    nearest_word(theirs, map(str, row)),
                )
            ])  # fmt: skip
    return row | {ours: row[theirs] for ours, theirs in columns.items()}


class Reader:
    """Typed access to a row's fields; every complaint names file, line and field."""

    def __init__(self, row: dict[str, Any], where: str, line: int) -> None:
        self.row, self.where, self.line = row, where, line

    def fail(self, field: str, found: str, accepted: str) -> InputError:
        return InputError([Problem(self.where, self.line, field, found, accepted)])

    def text(self, field: str, empty: bool = False) -> str:
        value = self.row.get(field)
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise self.fail(field, "nothing" if value is None else f"a {type(value).__name__}", "text")
        if not value.strip() and not empty:
            raise self.fail(field, "empty text", "text that is not empty")
        return value

    def answer(self) -> str | None:
        """Null where the question has none: only methods about knowing can use such a row."""
        if "answer" in self.row and self.row["answer"] is None:
            return None
        return self.text("answer")

    def number(self, field: str) -> float | None:
        value = self.row.get(field)
        try:
            return None if value in (None, "") else float(value)
        except (TypeError, ValueError):
            raise self.fail(field, f"`{value}`", "a number, or no such column") from None

    def prompt(self, field: str = "prompt") -> list[Message]:
        if isinstance(self.row.get(field), list):
            return self.messages(field)
        return [{"role": "user", "content": self.text(field)}]

    def messages(self, field: str) -> list[Message]:
        value = self.row.get(field)
        if not isinstance(value, list) or not value:
            found = "an empty list" if value == [] else f"a {type(value).__name__}"
            raise self.fail(field, found, "a list of messages with role and content")
        return [self._message(item, f"{field}[{index}]") for index, item in enumerate(value)]

    def _message(self, item: Any, field: str) -> Message:
        if not isinstance(item, dict):
            raise self.fail(field, f"a {type(item).__name__}", "a message with `role` and `content`")
        role, content = item.get("role", item.get("from")), item.get("content", item.get("value"))
        if role not in ROLES:
            raise self.fail(field, f"the role `{role}`", quoted(ROLES))
        if not isinstance(content, str):
            raise self.fail(field, f"a content of type {type(content).__name__}", "text")
        return {"role": ROLES[role], "content": content}

    def completion(self, field: str) -> tuple[list[Message], str]:
        """``(the turns before it, the last assistant turn)`` of a field that is text or a conversation."""
        if not isinstance(self.row.get(field), list):
            return [], self.text(field)
        messages = self.messages(field)
        if messages[-1]["role"] != "assistant":
            raise self.fail(field, f"a last turn by `{messages[-1]['role']}`", "a last turn by the assistant")
        return messages[:-1], messages[-1]["content"]


def _conversation(field: str) -> Callable[[Reader], Conversation]:
    def read(reader: Reader) -> Conversation:
        messages = reader.messages(field)
        if not any(message["role"] == "assistant" and message["content"].strip() for message in messages):
            raise reader.fail(field, "no assistant turn with text", "at least one: it is what is trained on")
        return Conversation(messages)

    return read


def _prompt_completion(reader: Reader) -> Conversation:
    _, completion = reader.completion("completion")
    return Conversation([*reader.prompt(), {"role": "assistant", "content": completion}])


def _instruction(reader: Reader) -> Conversation:
    prompt = reader.text("instruction")
    extra = reader.text("input", empty=True) if reader.row.get("input") else ""
    prompt = f"{prompt}\n\n{extra}" if extra.strip() else prompt
    return Conversation([{"role": "user", "content": prompt}, {"role": "assistant", "content": reader.text("output")}])


def _preference(reader: Reader) -> Preference:
    before_chosen, chosen = reader.completion("chosen")
    before_rejected, rejected = reader.completion("rejected")
    prompt = reader.prompt() if "prompt" in reader.row else before_chosen
    if not prompt:
        raise reader.fail("chosen", "a conversation of one turn", "a `prompt`, or conversations that begin with one")
    if "prompt" not in reader.row and before_chosen != before_rejected:
        raise reader.fail(
            "rejected", "another prompt than `chosen` has", "two conversations that differ in the last turn"
        )
    scores = [reader.number("score_chosen"), reader.number("score_rejected")]
    return Preference(prompt, chosen, rejected, *scores)


CONVERTERS: dict[str, Callable[[Reader], Form]] = {
    "preference": _preference,
    "preference, whole conversations": _preference,
    "contrast": lambda reader: Contrast(reader.prompt(), reader.text("positive"), reader.text("negative")),
    "messages": _conversation("messages"),
    "conversations": _conversation("conversations"),
    "prompt and completion": _prompt_completion,
    "prompt and answer": lambda reader: Question(reader.prompt(), reader.answer()),
    "question and answer": lambda reader: Question(reader.prompt("question"), reader.answer()),
    "instruction and output": _instruction,
    "prompts": lambda reader: Prompt(reader.prompt()),
}
