"""How a model's chat template ends a reply: a model that is never shown an end never learns to stop.

Read off the tokenizer's own files; the rows are rendered as training renders them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.data.formats import Message
from engine.data.lengths import chat_template, model_folder

LOOKED_AT = 200
"""Rows of the random sample that are rendered."""


@dataclass(frozen=True)
class Endings:
    """``stops``: the texts of the tokens at which generation ends. Of ``n`` rows that end with the assistant, ``ended``
    have one after its last word and ``refused`` are refused by the template (``why``, the first time). ``signs``: rows
    whose own text holds the template's special tokens, and the first of those."""

    template: bool
    stops: list[str]
    n: int = 0
    ended: int = 0
    refused: int = 0
    why: str = ""
    signs: int = 0
    sign: str = ""


def look_at_endings(model: str, texts: Sequence[list[Message]]) -> Endings:
    """Raises InputError for a model that is not here."""
    folder = model_folder(model)
    render, stops = chat_template(folder), stop_texts(folder)
    special = [sign for sign in special_texts(folder) if len(sign) > 2]
    n = ended = refused = signs = 0
    why = sign = ""
    for turns in texts[:LOOKED_AT]:
        held = next((one for one in special if any(one in turn["content"] for turn in turns)), None)
        signs += held is not None
        sign = sign or held or ""
        if not turns or turns[-1]["role"] != "assistant":
            continue
        n += 1
        if render is None:
            ended += bool(stops)  # the plain template closes every reply with EOS
            continue
        try:
            text = render(turns)
        except Exception as error:  # templates refuse conversations in their own ways
            refused += 1
            why = why or " ".join(str(error).split())[:160]
            continue
        last = turns[-1]["content"].strip()
        ended += any(stop in text[text.rfind(last) + len(last) :] for stop in stops)
    return Endings(render is not None, stops, n, ended, refused, why, signs, sign)


def judge_endings(found: Endings) -> list[str]:
    """Warnings."""
    said = []
    if not found.stops:
        said.append("the model names no end token (eos_token): its replies would never stop")
    elif found.n - found.refused > found.ended:
        count = found.n - found.refused - found.ended
        stops = ", ".join(f"`{stop}`" for stop in found.stops)
        said.append(
            f"the chat template writes no end token ({stops}) after the reply in {count} of {found.n} rows: the model would "
            "not learn to stop"
        )
    if not found.template:
        said.append(
            "the model has no chat template: turns are separated by blank lines and replies closed by its end token"
        )
    if found.refused:
        said.append(f"the chat template refuses {found.refused} of {found.n} rows ({found.why})")
    if found.signs:
        said.append(
            f"{found.signs} rows hold the template's own signs as text, such as `{found.sign}`: text that was templated "
            "already would be templated twice"
        )
    return said


def stop_texts(folder: Path) -> list[str]:
    """The tokens at which generation ends, as text: what the generation config, the config and the tokenizer name."""
    settings = _read(folder / "tokenizer_config.json")
    ids: list[Any] = []
    for name in ("generation_config.json", "config.json"):
        value = _read(folder / name).get("eos_token_id")
        ids += value if isinstance(value, list) else [value]
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    named = settings.get("eos_token")
    texts = [tokenizer.id_to_token(one) for one in ids if isinstance(one, int)]
    texts.append(named.get("content") if isinstance(named, dict) else named)
    return list(dict.fromkeys(text for text in texts if text and tokenizer.token_to_id(text) is not None))


def special_texts(folder: Path) -> list[str]:
    """The tokens that only a template writes."""
    added = _read(folder / "tokenizer.json").get("added_tokens") or []
    return [str(one["content"]) for one in added if one.get("special")]


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
