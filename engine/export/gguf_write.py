"""Write a GGUF file tensor by tensor: the header first, from the shapes alone, then each tensor as it is merged."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter, LlamaFileType
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import quant_shape_to_byte_shape, quantize
from numpy.typing import NDArray

from engine.export.gguf_model import (
    WORDS,
    add_figures,
    architecture,
    as_gguf,
    rope_factors,
    skipped,
    tensor_names,
)
from engine.export.gguf_vocabulary import Vocabulary

Array = NDArray[Any]
TYPES: dict[str, tuple[Kind, LlamaFileType]] = {
    "f16": (Kind.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (Kind.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (Kind.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q4_0": (Kind.Q4_0, LlamaFileType.MOSTLY_Q4_0),
}
"""What is written here; the K-quants are llama-quantize's."""


def stored_as(name: str, shape: tuple[int, ...], wanted: Kind) -> Kind:
    """Norms and biases stay in float32; embeddings and head get no coarser than 8 bit; odd rows stay in 16 bit."""
    if len(shape) == 1:
        return Kind.F32
    if wanted == Kind.Q4_0 and name in ("token_embd.weight", "output.weight"):
        wanted = Kind.Q8_0
    block = GGML_QUANT_SIZES[wanted][0]
    return wanted if shape[-1] % block == 0 else Kind.F16


def write_gguf(
    path: Path,
    config: Mapping[str, Any],
    vocabulary: Vocabulary,
    shapes: Mapping[str, tuple[int, ...]],
    tensor: Callable[[str], Array],
    kind: str,
    about: Mapping[str, str],
    after: Callable[[str], None] = lambda name: None,
) -> dict[str, str]:
    """``shapes`` has the checkpoint's names, ``tensor`` gives each in float32. Returns GGUF's name for each of them.

    ``about``: ``name``, ``description``, ``license`` and such, for the general keys.
    """
    config = dict(config)
    renamed = tensor_names(config)
    names = {name: renamed(name) for name in shapes if not skipped(name, config)}
    writer = GGUFWriter(path, WORDS[architecture(config)])
    writer.add_type("model")
    for key, value in about.items():
        writer.add_string(f"general.{key}", value)
    wanted, file_type = TYPES[kind]
    writer.add_file_type(int(file_type))
    writer.add_quantization_version(2)
    add_figures(writer, config, len(vocabulary.tokens))
    _add_vocabulary(writer, vocabulary)
    factors = rope_factors(config)
    if factors is not None:
        writer.add_tensor_info("rope_freqs.weight", factors.shape, factors.dtype, factors.nbytes)
    for name, place in names.items():
        stored = stored_as(place, shapes[name], wanted)
        block, size = GGML_QUANT_SIZES[stored]
        count = int(np.prod(shapes[name]))
        if stored in (Kind.F32, Kind.F16):
            writer.add_tensor_info(
                place, shapes[name], np.dtype(np.float32 if stored == Kind.F32 else np.float16), count * size
            )
        else:
            bytes_shape = quant_shape_to_byte_shape(shapes[name], stored)
            writer.add_tensor_info(place, bytes_shape, np.dtype(np.uint8), count // block * size, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    try:
        if factors is not None:
            writer.write_tensor_data(factors)
        for name, place in names.items():
            values = np.ascontiguousarray(as_gguf(name, tensor(name), config))
            writer.write_tensor_data(quantize(values, stored_as(place, shapes[name], wanted)))
            after(name)
    finally:
        writer.close()
    return names


def _add_vocabulary(writer: GGUFWriter, vocabulary: Vocabulary) -> None:
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.scores is not None:
        writer.add_token_scores(vocabulary.scores)
        writer.add_add_space_prefix(vocabulary.add_space_prefix)
    if vocabulary.merges is not None:
        writer.add_token_merges(vocabulary.merges)
    handlers = {
        "bos": writer.add_bos_token_id, "eos": writer.add_eos_token_id, "pad": writer.add_pad_token_id,
        "unk": writer.add_unk_token_id, "eot": writer.add_eot_token_id,
    }  # fmt: skip
    for role, number in vocabulary.special.items():
        handlers[role](number)
    writer.add_add_bos_token(vocabulary.add_bos)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)


def write_control_vector(
    path: Path, hint: str, layers: int, directions: Mapping[int, Array], about: Mapping[str, str]
) -> None:
    """llama.cpp's control vector: ``direction.N`` (H,) is added to the residual stream after block N, N from 1."""
    writer = GGUFWriter(path, "controlvector")
    for key, value in about.items():
        writer.add_string(f"general.{key}", value)
    writer.add_string("controlvector.model_hint", hint)
    writer.add_int32("controlvector.layer_count", layers)
    for layer, direction in sorted(directions.items()):
        writer.add_tensor(f"direction.{layer}", np.ascontiguousarray(direction, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
