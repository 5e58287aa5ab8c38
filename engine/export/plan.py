"""Before anything is written: can this lineage take that form, how large does it get, is there room."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.export import tools
from engine.export.forms import FORMS, K_QUANTS, Form
from engine.export.source import Source
from engine.export.tensors import BYTES, largest, read_header
from engine.hardware.host import probe_disk, probe_ram
from recipes.errors import InputError, Problem, nearest_word

GIB = 2**30
LIBRARIES = 1.2 * GIB
"""Memory of a process with torch and transformers loaded, before any weight."""
BITS = {"f16": 16.0, "bf16": 16.0, "q8_0": 8.5, "q4_0": 4.5, "8bit": 8.5, "4bit": 4.5,
        "q2_k": 2.63, "q3_k_s": 3.5, "q3_k_m": 3.91, "q3_k_l": 4.27, "q4_k_s": 4.58, "q4_k_m": 4.85,
        "q5_k_s": 5.54, "q5_k_m": 5.69, "q6_k": 6.56}  # fmt: skip
"""Bits a weight, scales included; llama.cpp's own figures for the K-quants."""
CARD = 2**17
"""Room for the card, the tokenizer and the other small files."""
MARGIN = 1.02


@dataclass(frozen=True)
class Plan:
    """What an export needs. Sizes in bytes."""

    form: Form
    type: str
    size: int
    """Of the finished export."""
    disk: int
    """At the worst moment, drafts included."""
    ram: int
    """At the worst moment: the model is loaded once more to be compared with the run."""
    precision: str
    """fp32, or bf16 where the model in fp32 would not fit into what is free."""
    free_disk: int
    free_ram: int
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = field(default_factory=tuple)
    foreign: bool = False
    """A family that we do not write as GGUF: llama.cpp's converter does, from the merged folder."""

    def to_json(self) -> dict[str, Any]:
        return {
            "form": self.form.name, "type": self.type, "purpose": self.form.purpose, "size": self.size, "disk": self.disk,
            "ram": self.ram, "free_disk": self.free_disk, "free_ram": self.free_ram, "precision": self.precision,
            "notes": list(self.notes), "problems": [str(problem) for problem in self.problems],
        }  # fmt: skip


def chosen_type(form: Form, wanted: str | None) -> str:
    """The way of storing, lower case. Raises InputError with the accepted ones."""
    if wanted is None:
        return form.types[0] if form.types else ""
    if wanted.lower() not in form.types:
        accepted = ", ".join(form.types) or f"nothing: {form.name} is stored in one way"
        raise InputError([Problem("--type", None, None, f"`{wanted}`", accepted, nearest_word(wanted, form.types))])
    return wanted.lower()


def find_form(name: str) -> Form:
    if name not in FORMS:
        accepted = ", ".join(FORMS)
        raise InputError([Problem("--to", None, None, f"`{name}`", accepted, nearest_word(name, FORMS))])
    return FORMS[name]


def plan(source: Source, form: Form, wanted_type: str | None, out: Path) -> Plan:
    """What the export needs and what speaks against it. ``problems`` is empty when it can be done.

    Raises InputError only for words that are no form or type.
    """
    kind = chosen_type(form, wanted_type)
    size, disk = _sizes(source, form, kind)
    elements = sum(facts.elements for facts in source.tensors.values())
    free_ram, free_disk = probe_ram().available, probe_disk(out).free
    precision = "fp32" if 4 * elements + LIBRARIES < 0.8 * free_ram else "bf16"
    writing = 16 * largest(source.tensors.values())
    loaded = 0 if form.name == "control-vector" else elements * (4 if precision == "fp32" else 2)
    ram = int(LIBRARIES + max(writing, loaded))
    problems = [*_lineage_problems(source, form), *_tool_problems(form, kind)]
    foreign = False
    if form.name in ("gguf", "ollama"):
        unknown = _family_problems(source)
        foreign = bool(unknown) and tools.convert_hf() is not None
        problems += _converter_problems(kind) if foreign else unknown
        disk += half_size(source) if foreign else 0
    if disk > free_disk:
        found = f"{free_disk / GIB:.2f} GiB free under {out.parent}"
        accepted = f"{disk / GIB:.2f} GiB; free some, or `--out` on another disk"
        problems.append(Problem("disk", None, None, found, accepted))
    if ram > free_ram:
        found = f"{free_ram / GIB:.2f} GiB of memory free"
        accepted = f"{ram / GIB:.2f} GiB to merge and to load it once more; end what else is running, or take `--to adapter` on a machine with more"
        problems.append(Problem("memory", None, None, found, accepted))
    return Plan(
        form,
        kind,
        size,
        disk,
        ram,
        precision,
        free_disk,
        free_ram,
        tuple(_notes(source, form)),
        tuple(problems),
        foreign,
    )


def _sizes(source: Source, form: Form, kind: str) -> tuple[int, int]:
    """``(finished, at the worst moment)``."""
    half = half_size(source)
    if form.name in ("merged", "steered"):
        return half + CARD, int(half * MARGIN) + CARD
    if form.name in ("gguf", "ollama"):
        size = int(_gguf_size(source, kind)) + CARD
        first = half if kind in K_QUANTS else 0
        return size, int((size + first) * MARGIN)
    if form.name == "mlx":
        size = int(half * BITS[kind] / 16) + CARD
        return size, int((size + half) * MARGIN)
    if form.name in ("adapter", "mlx-adapter", "hub"):
        size = 0
        if source.adapter is not None:
            size = sum(facts.size for facts in read_header(source.adapter / "adapter_model.safetensors")[0].values())
        per_edit = 4 * 2 * (source.text_config["hidden_size"] + source.text_config.get("intermediate_size", 0))
        size += per_edit * sum(len(edit["modules"]) for edit in source.lineage.edits) + CARD
        return size, int(size * MARGIN)
    return CARD, CARD


def half_size(source: Source) -> int:
    """Bytes of the weights in 16 bit."""
    return sum(facts.elements * min(2, BYTES[facts.dtype]) for facts in source.tensors.values())


def _gguf_size(source: Source, kind: str) -> float:
    tied = source.text_config.get("tie_word_embeddings", False)
    total = 0.0
    for name, facts in source.tensors.items():
        if name == "lm_head.weight" and tied:
            continue
        coarse = kind == "q4_0" and name.endswith(("embed_tokens.weight", "lm_head.weight"))
        bits = 32.0 if len(facts.shape) == 1 else 8.5 if coarse else BITS[kind]
        total += facts.elements * bits / 8
    return total


def _lineage_problems(source: Source, form: Form) -> list[Problem]:
    lineage, run = source.lineage, source.run.id
    if form.name in ("adapter", "mlx-adapter") and source.adapter is None and not lineage.edits:
        what = "a fully fine-tuned model" if "output/model" in lineage.base.path else "a stage that changed no weights"
        return [Problem(run, None, form.name, what, "a run with an adapter; `--to merged` has the whole model")]
    if form.name in ("steered", "control-vector") and not lineage.vectors:
        accepted = "a run with a steering stage"
        if form.name == "control-vector" and lineage.edits:
            accepted += (
                "; llama.cpp only adds vectors, it cannot project: `--to gguf` folds the abliteration into the weights"
            )
            return [Problem(run, None, form.name, "projections (an abliteration) and no vectors", accepted)]
        return [Problem(run, None, form.name, "no steering vectors", accepted)]
    return _control_vector_problems(source) if form.name == "control-vector" else []


def _control_vector_problems(source: Source) -> list[Problem]:
    run, problems = source.run, []
    acting = source.acting_vectors
    if not acting:
        accepted = "vectors whose dial is up in this run (its recipe's `compose`)"
        return [Problem(run.id, None, "control-vector", "vectors that are all at 0", accepted)]
    for vector in acting:
        metadata = read_header(run.path / vector["path"])[1]
        facts = json.loads(metadata.get("finetune-tui", "{}"))
        if vector["layer"] == 0:
            found, accepted = "a vector after block 0, which llama.cpp cannot reach", "a vector after block 1 or later"
        elif vector.get("window") is not None:
            found = f"a vector for the first {vector['window']} tokens of a completion"
            accepted = "one that acts on all tokens, as llama.cpp adds it (`windows` left out); or `--to steered`"
        elif facts.get("condition"):
            found, accepted = (
                "a vector with a condition",
                "one that acts always, as llama.cpp adds it; or `--to steered`",
            )
        else:
            continue
        problems.append(Problem(run.id, None, vector["name"], found, accepted))
    return problems


def _tool_problems(form: Form, kind: str) -> list[Problem]:
    if form.mlx and not tools.has_mlx():
        return [
            Problem(
                f"--to {form.name}", None, None, "no mlx-lm to convert and check it", f"it installed: {tools.get_mlx()}"
            )
        ]
    if kind in K_QUANTS and tools.llama_quantize() is None and not (form.name == "ollama" and tools.ollama()):
        accepted = f"f16, bf16, q8_0 or q4_0, which need nothing else; K-quants are made by llama-quantize of {tools.LLAMA_CPP}"
        accepted += f", or with `--to ollama` by {tools.OLLAMA}"
        return [Problem("--type", None, None, f"`{kind}` without llama-quantize", accepted)]
    return []


def _family_problems(source: Source) -> list[Problem]:
    from engine.export.gguf_model import architecture

    try:
        architecture(source.config)
    except InputError as error:
        return error.problems
    return []


def _converter_problems(kind: str) -> list[Problem]:
    """llama.cpp's converter writes 16 bit and Q8_0; what is coarser is made of that by llama-quantize."""
    if kind == "q4_0" and tools.llama_quantize() is None:
        accepted = f"f16, bf16 or q8_0 for this family; q4_0 is made by llama-quantize of {tools.LLAMA_CPP}"
        return [Problem("--type", None, None, "`q4_0` without llama-quantize", accepted)]
    return []


def _notes(source: Source, form: Form) -> list[str]:
    notes = []
    if source.acting_vectors and not form.vectors:
        names = ", ".join(vector["name"] for vector in source.acting_vectors)
        notes.append(
            f"the steering vectors ({names}) are not in it: `--to steered` and `--to control-vector` have them"
        )
    if form.name == "control-vector":
        notes.append("llama.cpp adds the vectors to the prompt's tokens too, the run only to the completion's")
        if source.lineage.adapter or source.lineage.edits:
            notes.append("use it on a GGUF of this run (`--to gguf`): the tune itself is not in it")
    if source.lineage.confidence:
        notes.append("the confidence settings of the calibration are in the model card; sampling stays as it was")
    return notes
