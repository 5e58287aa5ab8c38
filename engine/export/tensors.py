"""safetensors files by their headers: what is inside without reading it, and writing one tensor after the other.

The library writes a file from all its tensors at once; a merge must hold no more than one of them.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.errors import InputError, Problem

BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
LARGEST_HEADER = 100 * 2**20


@dataclass(frozen=True)
class TensorFacts:
    """A tensor in a file: its safetensors type (``BF16``), its shape, the file and the byte where it begins."""

    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def size(self) -> int:
        return self.elements * BYTES[self.dtype]


def read_header(path: Path) -> tuple[dict[str, TensorFacts], dict[str, str]]:
    """``(tensors, metadata)`` of a safetensors file. Raises InputError if it is broken or shorter than it says."""
    accepted = "a whole safetensors file"
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            start = file.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else LARGEST_HEADER + 1
            if length > min(size, LARGEST_HEADER):
                raise ValueError("no header")
            header: dict[str, Any] = json.loads(file.read(length))
        metadata = header.pop("__metadata__", {})
        tensors = {
            name: TensorFacts(facts["dtype"], tuple(facts["shape"]), path, 8 + length + facts["data_offsets"][0])
            for name, facts in header.items()
        }
        ends = max((facts["data_offsets"][1] for facts in header.values()), default=0)
    except OSError as error:
        raise InputError([Problem(str(path), None, None, error.strerror or "no such file", accepted)]) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError([Problem(str(path), None, None, "a broken file", accepted)]) from error
    for name, facts in tensors.items():
        if facts.dtype not in BYTES:
            raise InputError([Problem(str(path), None, name, f"a tensor of type {facts.dtype}", ", ".join(BYTES))])
    if 8 + length + ends > size:
        found = f"a broken file: it ends {8 + length + ends - size} bytes early"
        raise InputError([Problem(str(path), None, None, found, accepted)])
    return tensors, metadata


def read_folder(folder: Path) -> dict[str, TensorFacts]:
    """Every tensor of a model's folder, by name. Raises InputError if a shard is missing or broken."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = [folder / name for name in names]
    else:
        files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise InputError([Problem(str(folder), None, None, "no *.safetensors", "a folder with a model's weights")])
    tensors: dict[str, TensorFacts] = {}
    for file in files:
        tensors |= read_header(file)[0]
    return tensors


def read_bytes(facts: TensorFacts) -> bytearray:
    """A tensor's own bytes, read and not mapped: of a mapped file every page that was touched counts as ours."""
    content = bytearray(facts.size)
    with open(facts.file, "rb") as file:
        file.seek(facts.start)
        if file.readinto(content) != facts.size:
            raise InputError([Problem(str(facts.file), None, None, "a file that became shorter", "a whole one")])
    return content


def write_file(
    path: Path,
    entries: Mapping[str, tuple[str, tuple[int, ...]]],
    data: Callable[[str], Any],
    after: Callable[[str], None] = lambda name: None,
) -> None:
    """Write a safetensors file tensor by tensor: ``entries`` has each name's type and shape, ``data`` its bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, (dtype, shape) in entries.items():
        size = math.prod(shape) * BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, (dtype, shape) in entries.items():
            written = file.write(data(name))
            if written != math.prod(shape) * BYTES[dtype]:
                raise ValueError(f"{name}: {written} bytes instead of {math.prod(shape) * BYTES[dtype]}")
            after(name)


def largest(tensors: Iterable[TensorFacts]) -> int:
    """Elements of the largest tensor."""
    return max((facts.elements for facts in tensors), default=0)
