"""A model's vocabulary as GGUF keeps it: tokens, scores, types, merges, and the name of the pre-tokenizer.

llama.cpp knows two kinds of what the families here use: byte-level BPE (``gpt2``, told apart by the pattern that splits
text before merging) and SentencePiece BPE (``llama``, whose merges are ordered by the scores of what they make).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import TokenType

from recipes.errors import InputError, Problem

LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LETTERS = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{LETTERS[0]}*{LETTERS[1]}+|[^\r\n\p{{L}}\p{{N}}]?{LETTERS[0]}+{LETTERS[1]}*|\p{{N}}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PATTERNS = {LLAMA3: "llama-bpe", LLAMA3.replace("{1,3}", ""): "qwen2", TEKKEN: "tekken"}
"""The splitting pattern of a tokenizer.json -> llama.cpp's name for it."""
GENERATION_TAGS = re.compile(r"(?:\s*\{%-|(?m:^[ \t]+)?\{%)\s*(?:end)?generation\s*(?:-%\}\s*|%\}\n?)")
"""Tags that mark what is trained on, with the space that they swallow; they print nothing, and llama.cpp does not know
them."""


@dataclass(frozen=True)
class Vocabulary:
    """``tokens[i]`` belongs to id i; as many as the model has rows of embeddings."""

    model: str
    """``gpt2`` or ``llama``."""
    pre: str
    tokens: list[str]
    types: list[int]
    scores: list[float] | None
    merges: list[str] | None
    add_bos: bool
    add_space_prefix: bool
    special: dict[str, int]
    """``bos``, ``eos``, ``pad``, ``unk``, and ``eot`` where turns end by another token than the text."""
    chat_template: str | None


def read_vocabulary(folder: Path, size: int, turn_ends: list[int], template: str | None) -> Vocabulary:
    """From a folder's tokenizer.json (and tokenizer.model). ``turn_ends``: ids that end an assistant's turn.

    Raises InputError for a tokenizer that llama.cpp would split differently: the model would read other tokens.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise InputError([Problem(str(folder), None, None, "no tokenizer.json", "a model with a fast tokenizer")])
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    model = data["model"]
    if model.get("type") != "BPE":
        accepted = "BPE (byte-level, or SentencePiece's); for others llama.cpp's convert_hf_to_gguf.py on `--to merged`"
        raise InputError([Problem(str(path), None, "model.type", f"`{model.get('type')}`", accepted)])
    sentencepiece = bool(model.get("byte_fallback"))
    words, types = _tokens(data, size, sentencepiece)
    scores = _scores(folder, data, words, types) if sentencepiece else None
    special = _special(folder, words, data, turn_ends)
    return Vocabulary(
        model="llama" if sentencepiece else "gpt2",
        pre="default" if sentencepiece else _pretokenizer(path, data.get("pre_tokenizer")),
        tokens=words,
        types=types,
        scores=scores,
        merges=None if sentencepiece else _merges(model),
        add_bos=_adds_bos(path, special.get("bos")),
        add_space_prefix=_adds_space(data),
        special=special,
        chat_template=None if template is None else without_training_tags(template),
    )


def _tokens(data: dict[str, Any], size: int, sentencepiece: bool) -> tuple[list[str], list[int]]:
    words = {place: word for word, place in data["model"]["vocab"].items()}
    types: dict[int, int] = {}
    for added in data.get("added_tokens", []):
        words[added["id"]] = added["content"]
        types[added["id"]] = int(TokenType.CONTROL if added.get("special") else TokenType.USER_DEFINED)
    unknown = data["model"].get("unk_token")
    for place in range(max([size, *(one + 1 for one in words)])):
        if place not in words:  # rows of embeddings beyond the tokenizer's words
            words[place], types[place] = f"[PAD{place}]", int(TokenType.UNUSED)
        elif sentencepiece and re.fullmatch(r"<0x[0-9A-F]{2}>", words[place]):
            types[place] = int(TokenType.BYTE)
        elif sentencepiece and words[place] == unknown:
            types[place] = int(TokenType.UNKNOWN)
    if len(words) > size:
        found = f"{len(words)} tokens where the model has {size} rows of embeddings"
        raise InputError([Problem("tokenizer.json", None, None, found, "as many rows as tokens")])
    return [words[place] for place in range(size)], [types.get(place, int(TokenType.NORMAL)) for place in range(size)]


def _merges(model: dict[str, Any]) -> list[str]:
    """``a b`` a line; a space inside a part becomes the byte-level sign for it."""
    return [
        one if isinstance(one, str) else " ".join(part.replace(" ", "Ġ") for part in one) for one in model["merges"]
    ]


def _scores(folder: Path, data: dict[str, Any], words: list[str], types: list[int]) -> list[float]:
    """SentencePiece's own scores where its file is there; else the order of merges, which is what they are made of."""
    known: dict[str, float] = {}
    if (folder / "tokenizer.model").is_file():
        from sentencepiece import SentencePieceProcessor

        pieces = SentencePieceProcessor()
        pieces.LoadFromFile(str(folder / "tokenizer.model"))
        known = {pieces.IdToPiece(place): pieces.GetScore(place) for place in range(pieces.GetPieceSize())}
    else:
        for rank, merge in enumerate(data["model"]["merges"]):
            known.setdefault("".join(merge if isinstance(merge, list) else merge.split(" ")), -float(rank))
    lowest = min(known.values(), default=0.0) - 1.0
    plain = int(TokenType.NORMAL)
    return [known.get(word, lowest) if kind == plain else 0.0 for word, kind in zip(words, types, strict=True)]


def _pretokenizer(path: Path, pre: dict[str, Any] | None) -> str:
    steps = pre.get("pretokenizers", []) if pre and pre.get("type") == "Sequence" else [pre] if pre else []
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True) and not steps[0].get("add_prefix_space"):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and steps[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pattern = steps[0].get("pattern", {}).get("Regex")
        if pattern in PATTERNS and steps[0].get("behavior") == "Isolated":
            return PATTERNS[pattern]
    accepted = "the way GPT-2, Llama 3, Qwen 2 and 3, Mistral (tekken) or SmolLM split text"
    raise InputError([Problem(str(path), None, "pre_tokenizer", f"another way to split text ({kinds})", accepted)])


def _special(folder: Path, words: list[str], data: dict[str, Any], turn_ends: list[int]) -> dict[str, int]:
    """Ids by their role, by the words of tokenizer_config.json, else by config.json's ids."""
    places = {word: place for place, word in enumerate(words)}
    told = _json(folder / "tokenizer_config.json")
    config = _json(folder / "config.json")
    found: dict[str, int] = {}
    for role in ("bos", "eos", "unk", "pad"):
        word = told.get(f"{role}_token")
        word = word.get("content") if isinstance(word, dict) else word
        number = (config.get("text_config") or config).get(f"{role}_token_id")
        number = number[0] if isinstance(number, list) and number else number
        if isinstance(word, str) and word in places:
            found[role] = places[word]
        elif isinstance(number, int):
            found[role] = number
    if data["model"].get("unk_token") in places:
        found.setdefault("unk", places[data["model"]["unk_token"]])
    ends = [end for end in turn_ends if end != found.get("eos")]
    if "eos" not in found and turn_ends:
        found["eos"] = turn_ends[0]
    elif ends:
        found["eot"] = ends[0]
    return found


def _adds_bos(path: Path, bos: int | None) -> bool:
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(path)).encode("a").ids
    return bos is not None and bool(ids) and ids[0] == bos


def _adds_space(data: dict[str, Any]) -> bool:
    """Whether a text's first word gets a space before it (Llama 2 and Mistral; not Gemma)."""
    parts = [data.get("normalizer"), data.get("pre_tokenizer")]
    parts += (parts[0] or {}).get("normalizers", []) + (parts[1] or {}).get("pretokenizers", [])
    return any(
        part and (part["type"] == "Prepend" or (part["type"] == "Metaspace" and part.get("prepend_scheme") != "never"))
        for part in parts
    )


def without_training_tags(template: str) -> str:
    return GENERATION_TAGS.sub("", template)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
