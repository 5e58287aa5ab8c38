"""What memory and time depend on in a model, from its config alone: no weights are read and nothing is downloaded."""

from __future__ import annotations

import difflib
import json
import os
import struct
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from recipes.errors import InputError, Problem
from recipes.resources import assets_folder, resolve_model

OTHER_NAMES = {
    "n_embd": "hidden_size", "d_model": "hidden_size", "n_layer": "num_hidden_layers", "n_layers": "num_hidden_layers",
    "num_layers": "num_hidden_layers", "n_head": "num_attention_heads", "n_heads": "num_attention_heads",
    "num_heads": "num_attention_heads", "num_kv_heads": "num_key_value_heads", "n_inner": "intermediate_size",
    "ffn_dim": "intermediate_size", "n_positions": "max_position_embeddings", "n_ctx": "max_position_embeddings",
    "max_seq_len": "max_position_embeddings", "torch_dtype": "dtype", "num_local_experts": "num_experts",
    "n_routed_experts": "num_experts", "num_params": "parameters",
}  # fmt: skip
"""Field of a config.json or of a plain description -> our name for it."""
NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
GATED = {
    "llama", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text", "mistral", "mixtral", "phi3", "olmo2",
    "olmoe", "granite", "smollm3",
}  # fmt: skip
"""Architectures whose parameter formula is checked against published counts (tests/forecast)."""
PLAIN_MLP = {"gpt2", "gpt_neo", "gpt_neox", "gptj", "opt", "bloom", "falcon", "phi", "starcoder2"}
"""Two matrices in the MLP instead of three."""
FUSED_EXPERTS = {"mixtral", "qwen3_moe", "qwen2_moe", "olmoe"}
"""transformers 5 keeps the experts as one tensor, which bitsandbytes does not quantize and LoRA does not reach."""
DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I8": 1, "U8": 1, "F8_E4M3": 1}


@dataclass(frozen=True)
class Linear:
    """A linear layer of a decoder block: ``count`` of them per layer, ``inputs`` x ``outputs``."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False

    @property
    def size(self) -> int:
        return self.inputs * self.outputs


@dataclass(frozen=True)
class ModelFacts:
    """A decoder. Sizes are elements; ``active_intermediate`` is what one token passes through (all its experts)."""

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    tied: bool
    max_length: int | None
    experts: int = 0
    experts_per_token: int = 0
    shared_intermediate: int = 0
    architecture: str = ""
    norms: int = 2
    """Norms of the hidden size in a layer."""
    qk_norm: int = 0
    """Elements of the norms of queries and keys in a layer."""
    qkv_bias: bool = False
    fused_projections: bool = False
    """Phi-3: q, k, v in one matrix, gate and up in another."""
    gated: bool = True
    vision: int = 0
    """Parameters beside the language model."""
    disk_bytes: int | None = None
    """Size of the safetensors files where they are at hand."""
    certain: bool = True
    """False: an architecture that we do not know, priced by the general decoder formulas."""
    config: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def query_width(self) -> int:
        return self.heads * self.head_dim

    @property
    def key_width(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def active_intermediate(self) -> int:
        return self.intermediate * max(1, self.experts_per_token) + self.shared_intermediate

    def linears(self) -> list[Linear]:
        """The linear layers of one decoder block that LoRA and quantization reach."""
        return list(self._linears)

    @cached_property
    def _linears(self) -> tuple[Linear, ...]:
        h, q, k = self.hidden, self.query_width, self.key_width
        if self.fused_projections:
            found = [Linear("qkv_proj", h, q + 2 * k), Linear("o_proj", q, h)]
        else:
            found = [
                Linear("q_proj", h, q, self.qkv_bias), Linear("k_proj", h, k, self.qkv_bias),
                Linear("v_proj", h, k, self.qkv_bias), Linear("o_proj", q, h),
            ]  # fmt: skip
        width = self.shared_intermediate if self.experts else self.intermediate
        if width:
            if self.fused_projections:
                found += [Linear("gate_up_proj", h, 2 * width), Linear("down_proj", width, h)]
            else:
                found += [Linear("gate_proj", h, width)] if self.gated else []
                found += [Linear("up_proj", h, width), Linear("down_proj", width, h)]
        return tuple(found)

    @property
    def expert_parameters(self) -> int:
        """Parameters of all experts and their router in one layer."""
        if not self.experts:
            return 0
        return self.experts * 3 * self.hidden * self.intermediate + self.hidden * self.experts

    @property
    def small_parameters(self) -> int:
        """Norms and biases of the whole model."""
        biases = sum(linear.outputs for linear in self.linears() if linear.bias)
        return self.layers * (self.norms * self.hidden + self.qk_norm + biases) + self.hidden

    @property
    def embedding_parameters(self) -> int:
        """Embedding and, unless it is tied to it, the head."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        linears = sum(linear.size for linear in self.linears())
        return (
            self.layers * (linears + self.expert_parameters)
            + self.small_parameters
            + self.embedding_parameters
            + self.vision
        )

    @property
    def active_parameters(self) -> int:
        """Parameters that one token is multiplied with, the head included."""
        linears = sum(linear.size for linear in self.linears())
        experts = 3 * self.hidden * self.intermediate * self.experts_per_token if self.experts else 0
        return self.layers * (linears + experts) + self.vocabulary * self.hidden

    def adapter_parameters(self, rank: int, targets: str | list[str]) -> int:
        """LoRA: rank x (inputs + outputs) for every reached layer."""
        return self.layers * sum(rank * (one.inputs + one.outputs) for one in self.reached(targets))

    def reached(self, targets: str | list[str]) -> list[Linear]:
        """The linears of a block that an adapter with these targets has a part in."""
        if targets == "all-linear":
            return self.linears()
        names = ["q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj"] if targets == "attention" else list(targets)
        return [linear for linear in self.linears() if linear.name in names]


def from_config(config: dict[str, Any], name: str = "the model", disk_bytes: int | None = None) -> ModelFacts:
    """Facts from the content of a config.json (or a plain description with the same or similar field names).

    Raises InputError when a field is missing without which nothing can be said.
    """
    vision = int(config.get("vision_parameters") or 0)
    text = config.get("text_config") or config
    found: dict[str, Any] = {}
    for key, value in {**config, **text}.items():
        if value is not None:
            found.setdefault(OTHER_NAMES.get(key, key), value)
    missing = [key for key in NEEDED if not isinstance(found.get(key), int) or found[key] < 1]
    if missing:
        accepted = "positive whole numbers for " + ", ".join(f"`{key}`" for key in NEEDED)
        raise InputError([Problem(name, None, missing[0], f"`{found.get(missing[0])}`", accepted)])
    hidden, heads = found["hidden_size"], found["num_attention_heads"]
    architecture = str(text.get("model_type") or config.get("model_type") or _guess(name, found))
    kv_heads = int(found.get("num_key_value_heads") or heads)
    head_dim = int(found.get("head_dim") or hidden // heads)
    experts = int(found.get("num_experts") or 0)
    per_token = int(found.get("num_experts_per_tok") or (2 if experts else 0))
    width = found.get("intermediate_size") or 4 * hidden
    if experts and found.get("moe_intermediate_size"):
        width = found["moe_intermediate_size"]
    qk_norm = {
        "qwen3": 2 * head_dim, "qwen3_moe": 2 * head_dim, "gemma3_text": 2 * head_dim,
        "olmo2": (heads + kv_heads) * head_dim, "olmoe": (heads + kv_heads) * head_dim,
    }.get(architecture, 0)  # fmt: skip
    bias = architecture in ("qwen2", "qwen2_moe", "gpt2", "phi", "opt") or bool(found.get("attention_bias"))
    return ModelFacts(
        name=name,
        hidden=hidden,
        layers=found["num_hidden_layers"],
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=int(width),
        vocabulary=found["vocab_size"],
        tied=bool(found.get("tie_word_embeddings", architecture.startswith("gemma"))),
        max_length=found.get("max_position_embeddings"),
        experts=experts,
        experts_per_token=per_token,
        shared_intermediate=int(found.get("shared_expert_intermediate_size") or 0) if experts else 0,
        architecture=architecture,
        norms=4 if architecture in ("gemma2", "gemma3_text") else 2,
        qk_norm=qk_norm,
        qkv_bias=bias,
        fused_projections=architecture == "phi3",
        gated=architecture not in PLAIN_MLP,
        vision=vision,
        disk_bytes=disk_bytes,
        certain=architecture in GATED,
        config=_as_transformers(found, architecture),
    )


def _guess(name: str, found: dict[str, Any]) -> str:
    """An architecture for a description that names none: by the model's name, else Llama's."""
    words = f"{name} {found.get('name', '')} {found.get('model_id', '')}".lower()
    families = {"qwen2": "qwen2", "qwen3": "qwen3", "gemma-2": "gemma2", "gemma-3": "gemma3_text", "phi-3": "phi3"}
    families |= {"deepseek-r1-distill-qwen": "qwen2", "olmo-2": "olmo2", "granite": "granite"}
    guess = next((family for part, family in families.items() if part in words), "llama")
    return "qwen3_moe" if guess == "qwen3" and found.get("num_experts") else guess


def _as_transformers(found: dict[str, Any], architecture: str) -> dict[str, Any]:
    """What ``AutoConfig.for_model`` takes: the trace builds the model from it."""
    strange = ("name", "model_id", "parameters", "vision_parameters", "vision_config", "text_config", "architectures")
    back = {"num_experts": "num_local_experts"} if architecture == "mixtral" else {}
    given = {back.get(key, key): value for key, value in found.items() if key not in strange}
    return {**given, "model_type": architecture}


# ---- where a recipe's model word leads -----------------------------------------------------------------------------------


@cache
def catalogue() -> dict[str, dict[str, Any]]:
    """Hub id -> its entry of assets/catalogue/models.json."""
    path = assets_folder() / "catalogue" / "models.json"
    entries = json.loads(path.read_text(encoding="utf-8"))["models"]
    return {name: entry for entry in entries for name in entry["ids"]}


def find_model(word: str, folder: Path | None = None) -> ModelFacts:
    """Facts of the model that a recipe names: a local directory, a config.json, the hub cache, or the catalogue.

    Raises InputError with the nearest names of the catalogue and how to give a config.
    """
    where = resolve_model(word, folder or Path.cwd())
    if where is not None:
        return from_folder(where, word)
    path = Path(word).expanduser()
    path = path if path.is_absolute() else (folder or Path.cwd()) / path
    if path.suffix == ".json" and path.is_file():
        return from_config(_json(path), word)
    cached = _hub_cache(word)
    if cached is not None:
        return from_folder(cached, word)
    by_name = {name.lower(): name for name in catalogue()}
    short = {name.lower().rpartition("/")[2]: name for name in reversed(list(catalogue()))}
    known = by_name.get(word.lower()) or short.get(word.lower())
    if known is not None:
        return from_config(catalogue()[known]["config"], known)
    names = list(catalogue())
    close = difflib.get_close_matches(word.lower(), [*by_name, *short], n=4, cutoff=0.4)
    near = list(dict.fromkeys(by_name.get(one) or short[one] for one in close))
    accepted = (
        "a model directory, a config.json (save the model page's config.json and name the file), a model in the hub "
        f"cache, or one of the {len(names)} names of the catalogue"
        + (f", such as {', '.join(f'`{one}`' for one in near)}" if near else "")
    )
    raise InputError([
        Problem("recipe", None, "model", f"`{word}`, which is neither here nor in the catalogue", accepted, near[0] if near else None)
    ])  # fmt: skip


def from_folder(folder: Path, name: str) -> ModelFacts:
    """Facts of a model directory: its config.json, and the sizes in the headers of its safetensors files."""
    path = folder / "config.json"
    if not path.is_file():
        raise InputError([Problem(str(folder), None, "model", "no config.json", "a directory with config.json")])
    sizes = [_tensor_bytes(file) for file in sorted(folder.glob("*.safetensors"))]
    total = sum(size for size in sizes if size) or None
    return from_config(_json(path), name, total)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError([Problem(str(path), None, None, f"no JSON ({error})", "a config.json")]) from None
    if not isinstance(content, dict):
        raise InputError([Problem(str(path), None, None, f"a {type(content).__name__}", "a JSON object")])
    return content


def _tensor_bytes(path: Path) -> int | None:
    """Bytes of the tensors that a safetensors file's header lists; None if it is none."""
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, 100 << 20)))
        return sum(one["data_offsets"][1] - one["data_offsets"][0] for key, one in header.items() if key[:2] != "__")
    except (OSError, ValueError, struct.error, KeyError, TypeError):
        return None


def _hub_cache(word: str) -> Path | None:
    """The newest snapshot of a model in the hub cache that has a config.json."""
    if word.count("/") != 1:
        return None
    home = os.environ.get("HF_HUB_CACHE") or os.path.join(
        os.environ.get("HF_HOME") or os.path.expanduser("~/.cache/huggingface"), "hub"
    )
    snapshots = Path(home) / f"models--{word.replace('/', '--')}" / "snapshots"
    found = [one for one in snapshots.glob("*") if (one / "config.json").is_file()] if snapshots.is_dir() else []
    return max(found, key=lambda one: one.stat().st_mtime) if found else None
