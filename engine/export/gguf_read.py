"""Read a GGUF file back with the ``gguf`` package's reader: every tensor, the vocabulary, what ends a turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH_NAMES, GGUFReader, TokenType, get_tensor_name_map
from gguf.quants import dequantize

from engine.export.comparison import Comparison, relative_error
from engine.export.gguf_model import architecture, as_gguf, rope, skipped, tensor_names

FIGURES = {
    "context_length": "max_position_embeddings", "embedding_length": "hidden_size", "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size", "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
}  # fmt: skip
"""GGUF's keys (after the architecture) -> config.json's."""


def field(reader: GGUFReader, key: str) -> Any:
    found = reader.get_field(key)
    return None if found is None else found.contents()


def compare_tensors(
    found: Comparison,
    path: Path,
    config: dict[str, Any],
    names: Sequence[str],
    tensor: Callable[[str], Any],
    say: Callable[..., None],
) -> None:
    """Every tensor against the merged one, and that none is missing or too many."""
    reader = GGUFReader(path)
    stored = {one.name: one for one in reader.tensors}
    renamed = tensor_names(config)
    wanted = {renamed(name): name for name in names if not skipped(name, config)}
    extra = set(stored) - set(wanted) - {"rope_freqs.weight"}
    missing = set(wanted) - set(stored)
    found.check(
        "all tensors there", not extra and not missing, f"tensors missing {sorted(missing)}, extra {sorted(extra)}"
    )
    for number, (place, name) in enumerate(wanted.items()):
        if place in stored:
            values = dequantize(stored[place].data, stored[place].tensor_type)
            merged = as_gguf(name, tensor(name), config)
            found.worst_tensor = max(found.worst_tensor, relative_error(merged, values.reshape(merged.shape)))
            found.tensors += 1
        say("comparing tensors", number + 1, len(wanted))
    prefix = field(reader, "general.architecture")
    wrong = [
        key for key, ours in FIGURES.items() if ours in config and field(reader, f"{prefix}.{key}") != config[ours]
    ]
    theta = field(reader, f"{prefix}.rope.freq_base")
    wrong += [] if theta is not None and np.isclose(theta, rope(config)["theta"]) else ["rope.freq_base"]
    found.check("figures the same", not wrong and bool(architecture(config)), f"other figures: {wrong}")


def compare_foreign(
    found: Comparison,
    path: Path,
    config: dict[str, Any],
    names: Sequence[str],
    tensor: Callable[[str], Any],
    say: Callable[..., None],
) -> None:
    """A file of llama.cpp's own converter: the tensors that the ``gguf`` package's map names, by their sorted values.

    Sorted, because a converter may turn rows or transpose; what it splits or joins has another size and is left out.
    """
    reader = GGUFReader(path)
    stored = {one.name: one for one in reader.tensors}
    arch = next(
        (arch for arch, name in MODEL_ARCH_NAMES.items() if name == field(reader, "general.architecture")), None
    )
    found.check("a known architecture", arch is not None, f"architecture {field(reader, 'general.architecture')}")
    if arch is None:
        return
    places = get_tensor_name_map(arch, config["num_hidden_layers"])
    for number, name in enumerate(names):
        place = stored.get(places.get_name(name, try_suffixes=(".weight", ".bias")) or "")
        values = None if place is None else dequantize(place.data, place.tensor_type).ravel()
        merged = tensor(name).ravel() if values is not None else None
        if values is not None and merged is not None and values.size == merged.size:
            found.worst_tensor = max(found.worst_tensor, relative_error(np.sort(merged), np.sort(values)))
            found.tensors += 1
        say("comparing tensors", number + 1, len(names))
    found.check(
        "half of the tensors compared", 2 * found.tensors >= len(names), f"only {found.tensors} tensors compared"
    )


def compare_vocabulary(found: Comparison, path: Path, tokenizer: Any, stops: Sequence[int]) -> None:
    """Each id's word against the tokenizer's; the tokens that end a turn must be among those that llama.cpp stops at."""
    reader = GGUFReader(path)
    words, types = field(reader, "tokenizer.ggml.tokens"), field(reader, "tokenizer.ggml.token_type")
    theirs = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    wrong = [number for number, word in enumerate(theirs) if words[number] != word]
    found.check("vocabulary the same", not wrong, f"other words at {wrong[:5]}")
    special = set(tokenizer.all_special_ids)
    plain = [number for number in special if types[number] not in (TokenType.CONTROL, TokenType.UNKNOWN)]
    found.check("special tokens marked", not plain, f"special tokens {plain[:5]} are stored as text")
    ends = {field(reader, f"tokenizer.ggml.{role}_token_id") for role in ("eos", "eot")}
    found.check("ends of turn the same", bool(ends & set(stops)), f"stops at {ends}, the run at {list(stops)}")


def read_template(path: Path) -> str | None:
    return field(GGUFReader(path), "tokenizer.chat_template")
