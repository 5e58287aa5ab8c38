"""How long rows are: in characters always, in tokens with a local tokenizer."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.data.formats import Message
from recipes.errors import InputError, Problem, nearest_word
from recipes.resources import LAB_MODELS, resolve_model

KEPT = 20_000
"""Lengths of a random sample that quantiles are taken from; the largest is exact."""
TOKENIZED = 2_000
"""Rows of a random sample that are tokenized."""
CHARACTERS_A_TOKEN = 4.0
"""Of English text with a modern vocabulary; only used where no tokenizer is given, and said so."""


@dataclass(frozen=True)
class Lengths:
    """``n`` rows measured of ``of``; ``truncated`` is the share over ``limit`` tokens."""

    unit: str
    n: int
    of: int
    mean: float
    quantiles: dict[str, int]
    longest: int
    limit: int
    truncated: float
    exact: bool
    """False: tokens are estimated from characters."""
    template: bool = False
    """Whether the model's chat template is counted in."""


class Sample:
    """A uniform random sample of fixed size from a stream (Vitter's algorithm R), the same every time."""

    def __init__(self, size: int) -> None:
        self.size, self.seen = size, 0
        self.items: list[Any] = []
        self._random = random.Random(0)

    def add(self, item: Any) -> None:
        self.seen += 1
        if len(self.items) < self.size:
            self.items.append(item)
        else:
            place = self._random.randrange(self.seen)
            if place < self.size:
                self.items[place] = item


def summarize(
    unit: str, lengths: Sequence[int], of: int, longest: int, limit: int, exact: bool, template: bool
) -> Lengths:
    ordered = sorted(lengths)
    quantiles = {f"p{share}": ordered[min(len(ordered) - 1, len(ordered) * share // 100)] for share in (10, 50, 90, 99)}
    per_token = 1.0 if unit == "tokens" else CHARACTERS_A_TOKEN
    over = sum(length > limit * per_token for length in ordered) / len(ordered)
    mean = sum(ordered) / len(ordered)
    return Lengths(unit, len(ordered), of, mean, quantiles, longest, limit, over, exact, template)


def token_lengths(model: str, texts: Sequence[list[Message]], of: int, limit: int) -> Lengths:
    """Tokens of whole conversations with the model's own tokenizer, its chat template included where it has one."""
    folder = model_folder(model)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    render = chat_template(folder)
    try:
        rendered = [render(turns) for turns in texts] if render else None
    except Exception:  # templates refuse conversations in their own ways; the texts alone are then counted
        rendered = None
    plain = rendered is None
    rendered = rendered or ["\n".join(turn["content"] for turn in turns) for turns in texts]
    encoded = tokenizer.encode_batch(rendered, add_special_tokens=plain)
    lengths = [len(item.ids) for item in encoded]
    return summarize("tokens", lengths, of, max(lengths), limit, True, not plain)


def model_folder(model: str) -> Path:
    folder = resolve_model(model, Path.cwd())
    if folder is None:
        found = f"`{model}`, which is no directory here"
        accepted = "`lab`, `lab-nano` or the directory of a model that is on this machine"
        raise InputError([Problem("--model", None, None, found, accepted, nearest_word(model, LAB_MODELS))])
    if not (folder / "tokenizer.json").is_file():
        raise InputError([Problem(str(folder), None, None, "no tokenizer.json", "a model with a fast tokenizer")])
    return folder


def chat_template(folder: Path) -> Callable[[list[Message]], str] | None:
    """A function from turns to text as the model's template writes them; None without a template or Jinja.

    The environment is set up as transformers does it (utils/chat_template_utils.py); the tags that mark what the
    assistant generates write nothing, and are taken for an ``if`` here.
    """
    file, settings_file = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text(encoding="utf-8")) if settings_file.is_file() else {}
    source = file.read_text(encoding="utf-8") if file.is_file() else settings.get("chat_template")
    if not isinstance(source, str):
        return None
    try:
        from jinja2.exceptions import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        return None

    def refuse(message: str) -> None:
        raise ValueError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = time.strftime
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    source = re.sub(r"{%([-+]?)\s*generation\s*([-+]?)%}", r"{%\1 if true \2%}", source)
    source = re.sub(r"{%([-+]?)\s*endgeneration\s*([-+]?)%}", r"{%\1 endif \2%}", source)
    try:
        template = environment.from_string(source)
    except TemplateError:
        return None
    words = {name: _word(settings.get(name)) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    return lambda turns: template.render(messages=turns, add_generation_prompt=False, **words)


def _word(token: Any) -> str:
    return token.get("content", "") if isinstance(token, dict) else token or ""
