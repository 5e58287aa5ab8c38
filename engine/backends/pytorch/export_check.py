"""The round trip: load an export as anybody would, with none of the code that wrote it, and compare with the run.

A transformers folder is loaded by transformers, an adapter by PEFT on the plain base, a GGUF file by transformers'
own GGUF reader (other code than ours for names, permutations and quantization) and by ``GGUFReader`` tensor by tensor.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from engine.backends.pytorch.device import pick_device
from engine.backends.pytorch.export_reference import rendered
from engine.export.comparison import TOLERANCES, Comparison, relative_error

Say = Callable[..., None]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
OUTPUTS = 3
"""Completions generated anew; along the others the logits are compared."""


class Probes:
    """What the run said (engine/backends/pytorch/export_reference.py)."""

    def __init__(self, folder: Path, variant: str) -> None:
        found = json.loads((folder / "probes.json").read_text(encoding="utf-8"))
        self.rows: list[dict[str, Any]] = found[variant]
        self.stops: list[int] = found["stops"]
        self.kl_base: float | None = found["kl_base"]
        self.rendered: list[tuple[Any, str]] = found["rendered"]
        self.encoded: list[tuple[str, list[int]]] = found["encoded"]
        self._file = safe_open(folder / "logits.safetensors", framework="np")
        self.variant = variant

    def logits(self) -> list[Any]:
        return [self._file.get_tensor(f"{self.variant}.{number}") for number in range(len(self.rows))]


def check(request: dict[str, Any], say: Say) -> Comparison:
    form = request["form"]
    if form == "control-vector":
        return _control_vector(request)
    say("loading it again", 0, 1)
    probes = Probes(Path(request["reference"]), "steered" if form == "steered" else "plain")
    if form in ("gguf", "ollama"):
        return _gguf(request, probes, say)
    out, dtype = Path(request["out"]), DTYPES[request["precision"]]
    device = pick_device()
    with torch.no_grad():
        if form == "adapter":
            from peft import PeftModel

            base = AutoModelForCausalLM.from_pretrained(request["base"], dtype=dtype, use_safetensors=True)
            model: Any = PeftModel.from_pretrained(base, str(out))
            found = Comparison("transformers and PEFT")
        elif form == "steered":
            model = _own_loader(out).load(dtype=dtype)[0]
            found = Comparison("its own load.py")
        else:
            model = AutoModelForCausalLM.from_pretrained(out, dtype=dtype, use_safetensors=True)
            found = Comparison("transformers")
        model = model.to(device).eval()
        compare_outputs(found, model, probes, device, say)
        compare_tokenizer(found, AutoTokenizer.from_pretrained(out), probes)
        if form != "adapter":
            _compare_stops(found, model, probes)
    found.judge(TOLERANCES["exact" if form == "adapter" and request["precision"] == "fp32" else request["tolerance"]])
    return found


def compare_outputs(found: Comparison, model: Any, probes: Probes, device: Any, say: Say) -> None:
    """Logits along the run's completions, token by token with the cache as a user's chat goes, and greedy outputs."""

    def logits() -> Iterator[Any]:
        for number, row in enumerate(probes.rows):
            yield _along(model, row["ids"], row["tokens"], device)
            say("comparing logits", number + 1, len(probes.rows))

    found.kl_base = probes.kl_base
    found.add_logits(probes.logits(), logits())
    rows = probes.rows[:OUTPUTS]
    found.add_outputs([row["tokens"] for row in rows], (_greedy(model, row, probes.stops, device) for row in rows))


def _along(model: Any, ids: list[int], tokens: list[int], device: Any) -> Any:
    """(T, V) that predict the given tokens: the prompt at once, then one token at a time."""
    output = model(input_ids=torch.tensor([ids], device=device), use_cache=True)
    rows = [output.logits[0, -1]]
    for token in tokens[:-1]:
        output = model(
            input_ids=torch.tensor([[token]], device=device), past_key_values=output.past_key_values, use_cache=True
        )
        rows.append(output.logits[0, -1])
    return torch.stack(rows).float().cpu().numpy()


def _greedy(model: Any, row: dict[str, Any], stops: list[int], device: Any) -> list[int]:
    ids = torch.tensor([row["ids"]], device=device)
    config = GenerationConfig(
        max_new_tokens=len(row["tokens"]), do_sample=False, eos_token_id=stops, pad_token_id=stops[0]
    )
    made = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return made[0, ids.shape[1] :].tolist()


def compare_tokenizer(found: Comparison, tokenizer: Any, probes: Probes) -> None:
    wrong = [text for text, ids in probes.encoded if tokenizer(text, add_special_tokens=False)["input_ids"] != ids]
    found.check("tokens the same", not wrong, f"other tokens for {wrong[:1]}")
    compare_template(found, probes, lambda messages: rendered(tokenizer, messages))


def compare_template(found: Comparison, probes: Probes, render: Callable[[Any], str | None]) -> None:
    wrong = [text for messages, text in probes.rendered if render(messages) != text]
    found.check("chat template the same", not wrong, "the chat template renders a conversation differently")


def _compare_stops(found: Comparison, model: Any, probes: Probes) -> None:
    stops = model.generation_config.eos_token_id
    stops = stops if isinstance(stops, list) else [stops]
    found.check(
        "ends of turn the same", set(stops) == set(probes.stops), f"stops at {stops}, the run at {probes.stops}"
    )


def _own_loader(folder: Path) -> Any:
    spec = importlib.util.spec_from_file_location("load", folder / "load.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---- GGUF ------------------------------------------------------------------------------------------------------------


def _gguf(request: dict[str, Any], probes: Probes, say: Say) -> Comparison:
    from engine.backends.pytorch.export_write import weights_of
    from engine.export.gguf_read import compare_foreign, compare_tensors, compare_vocabulary, read_template

    path = Path(request["out"]) / "model.gguf"
    found = Comparison("transformers' GGUF reader")
    weights = weights_of(request)
    config = weights.config.get("text_config") or weights.config
    names = [name for name in weights.facts]
    merged = lambda name: weights.merged(name).float().numpy()  # noqa: E731
    if request["foreign"]:
        found.loader = "the gguf package's reader"
        compare_foreign(found, path, config, names, merged, say)
    else:
        compare_tensors(found, path, config, names, merged, say)
    tokenizer = AutoTokenizer.from_pretrained(request["tokenizer"])
    compare_vocabulary(found, path, tokenizer, probes.stops)
    template = read_template(path)
    compare_template(found, probes, lambda messages: rendered(tokenizer, messages, template))
    if request["readable"]:
        # Its figures are compared by the reader above; here the weights are put through another program's names.
        options: dict[str, Any] = {
            "config": _as_gguf_says(request["base"]),
            "dtype": DTYPES[request["precision"]],
        }
        device = pick_device()
        with torch.no_grad():
            model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, **options).to(device).eval()
            compare_outputs(found, model, probes, device, say)
    found.judge(request_tolerance(request))
    return found


def _as_gguf_says(base: str) -> Any:
    """The base's config; GGUF has no Mistral, which is Llama there."""
    config = AutoConfig.from_pretrained(base)
    if config.model_type != "mistral":
        return config
    other = ("model_type", "architectures", "sliding_window", "layer_types")
    return AutoConfig.for_model("llama", **{key: value for key, value in config.to_dict().items() if key not in other})


def request_tolerance(request: dict[str, Any]) -> Any:
    from engine.export.comparison import K_QUANTS

    return TOLERANCES.get(request["tolerance"], K_QUANTS)


def _control_vector(request: dict[str, Any]) -> Comparison:
    """What llama.cpp would add after each block, against what the run adds."""
    from gguf import GGUFReader

    from engine.interventions.vectors import load_vector

    reader = GGUFReader(Path(request["out"]) / "vectors.gguf")
    found = Comparison("GGUFReader")
    wanted: dict[str, Any] = {}
    for entry in request["lineage"]["vectors"]:
        vector = load_vector(Path(request["run"]) / entry["path"], entry["strength"])
        if vector.coefficient:
            key = f"direction.{vector.layer}"
            wanted[key] = wanted.get(key, 0) + vector.coefficient * vector.direction.astype(np.float64)
    there = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    found.check(
        "a direction for each layer", set(there) == set(wanted), f"has {sorted(there)} instead of {sorted(wanted)}"
    )
    for name in set(there) & set(wanted):
        found.tensors += 1
        found.worst_tensor = max(found.worst_tensor, relative_error(wanted[name], there[name]))
    field = reader.get_field("general.architecture")
    found.check(
        "architecture controlvector", field is not None and field.contents() == "controlvector", "another architecture"
    )
    found.judge(TOLERANCES["f16"])
    return found
