"""The weights of a lineage, one at a time: the base's, with the adapter's product added and the edits folded in.

Merged in float32 and cast once. Nothing but the tensor at hand is in memory, and the base is only read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from engine.backends.pytorch.edits import applied
from engine.export.adapter_names import PREFIX, module_of
from engine.export.tensors import read_bytes, read_folder
from engine.interventions.edits import Edit, load_edits
from recipes.errors import InputError, Problem

HALF = {"F16": torch.float16, "BF16": torch.bfloat16}
TYPES = {
    "F64": torch.float64, "F32": torch.float32, **HALF, "I64": torch.int64, "I32": torch.int32, "I16": torch.int16,
    "I8": torch.int8, "U8": torch.uint8, "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64, "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
TORCH_FLOATS = ("F64", "F32", "F16", "BF16")
TRANSPOSED = ("gpt2", "gpt_neo_x_japanese", "openai-gpt")
"""Model types whose linear layers store (in, out)."""


@dataclass(frozen=True)
class Delta:
    """One module's adapter: ``b @ a`` (out, in) is added to its weight. float32, the scaling multiplied into ``b``."""

    a: torch.Tensor
    b: torch.Tensor


class MergedWeights:
    """What the lineage's model computes with, by the base's own tensor names."""

    def __init__(self, base: Path, adapter: Path | None, edits: Sequence[tuple[Path, float]]) -> None:
        self.base = base
        self.facts = read_folder(base)
        self.config: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
        self.transposed = self.config.get("model_type") in TRANSPOSED
        self.deltas = read_adapter(adapter) if adapter else {}
        self.edits = read_edits(edits)
        self._refuse_unknown()
        self._refuse_tied()

    def _refuse_unknown(self) -> None:
        for module in [*self.deltas, *self.edits]:
            if f"{module}.weight" not in self.facts:
                accepted = "modules whose weight the base stores as one matrix under its own name"
                raise InputError([Problem(str(self.base), None, module, "no such weight to merge into", accepted)])

    def _refuse_tied(self) -> None:
        tied = (self.config.get("text_config") or self.config).get("tie_word_embeddings", False)
        names = [module for module in [*self.deltas, *self.edits] if module.endswith(("lm_head", "embed_tokens"))]
        if tied and names:
            accepted = "an adapter that leaves embeddings shared with the head alone"
            raise InputError([Problem(str(self.base), None, names[0], "an adapter on a shared weight", accepted)])

    def dtype_of(self, name: str) -> str:
        """The type it is exported in: 16 bit for floats, the base's own where that is 16 bit already."""
        stored = self.facts[name].dtype
        return "BF16" if stored in TORCH_FLOATS and stored not in HALF else stored

    def stored(self, name: str) -> torch.Tensor:
        facts = self.facts[name]
        if not facts.elements:
            return torch.empty(facts.shape, dtype=TYPES[facts.dtype])
        return torch.frombuffer(read_bytes(facts), dtype=TYPES[facts.dtype]).reshape(facts.shape)

    def merged(self, name: str) -> torch.Tensor:
        """The tensor in float32 if anything acts on it, else as the base stores it."""
        module, _, part = name.rpartition(".")
        delta, edits = self.deltas.get(module), self.edits.get(module, [])
        tensor = self.stored(name)
        if part == "bias" and edits:
            return _edited(tensor.float(), edits)
        if part != "weight" or (delta is None and not edits):
            return tensor
        weight = tensor.float()
        weight = weight.T if self.transposed else weight
        if delta is not None:
            weight = weight.addmm(delta.b, delta.a)
        # The edits act on outputs, whose last dimension is the weight's first: (W x) edited is (W edited) x.
        weight = _edited(weight.T, edits).T if edits else weight
        return (weight.T if self.transposed else weight).contiguous()

    def exported(self, name: str) -> torch.Tensor:
        """The merged tensor, cast once to the type that ``dtype_of`` names."""
        tensor = self.merged(name)
        dtype = self.dtype_of(name)
        if dtype not in HALF:
            return tensor
        cast = tensor.to(HALF[dtype])
        if dtype == "F16" and not torch.isfinite(cast).all():
            accepted = "a base in bf16: these weights leave fp16's range"
            raise InputError([Problem(str(self.base), None, name, "weights above 65504 after merging", accepted)])
        return cast


def _edited(output: torch.Tensor, edits: Sequence[tuple[Edit, float]]) -> torch.Tensor:
    for edit, strength in edits:
        if strength * edit.weight:
            output = applied(edit, output, strength)
    return output


def read_adapter(folder: Path) -> dict[str, Delta]:
    """Module name -> its delta. Raises InputError for what is no plain LoRA."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    unusual = [name for name in ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save") if config.get(name)]
    if unusual or config.get("bias", "none") != "none":
        accepted = "a plain LoRA adapter, as the runs here train them"
        raise InputError(
            [Problem(str(folder), None, ", ".join(unusual) or "bias", "another kind of adapter", accepted)]
        )
    rank = config["r"]
    scaling = config["lora_alpha"] / (rank**0.5 if config.get("use_rslora") else rank)
    found: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        for name in file.keys():
            module, part = module_of(name)
            found.setdefault(module, {})[part] = file.get_tensor(name).float()
    return {module: Delta(parts["lora_A"], parts["lora_B"] * scaling) for module, parts in found.items()}


def read_edits(files: Sequence[tuple[Path, float]]) -> dict[str, list[tuple[Edit, float]]]:
    """Module name -> the edits on its output with their strengths, in the lineage's order."""
    found: dict[str, list[tuple[Edit, float]]] = {}
    for path, strength in files:
        for edit in load_edits(path):
            found.setdefault(edit.module, []).append((edit, strength))
    return found


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    return memoryview(tensor.contiguous().view(torch.uint8).numpy()).cast("B") if tensor.numel() else memoryview(b"")


__all__ = ["PREFIX", "Delta", "MergedWeights", "raw_bytes", "read_adapter", "read_edits"]
