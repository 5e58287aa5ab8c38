"""An adapter to take home: the run's own, with edits folded in where it has some, in PEFT's or mlx-lm's form.

An edit of outputs y' = s * (y - l u (w . y)) on top of W + BA is the low-rank change -l u (w^T (W + BA)), one rank more,
and for the row-norm preserving form a new length of every row: a DoRA whose magnitudes are s * |row|. Both are exact.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from engine.backends.pytorch.export_merge import PREFIX, Delta, MergedWeights
from recipes.errors import InputError, Problem


def folded(weights: MergedWeights) -> tuple[dict[str, Delta], dict[str, torch.Tensor]]:
    """``(deltas, magnitudes)`` of the base's modules. Magnitudes (out,) are empty unless a form keeps row norms."""
    if weights.transposed and weights.edits:
        accepted = "a base whose linear layers store (out, in); take `--to merged`"
        raise InputError([Problem("adapter", None, None, "edits on transposed layers", accepted)])
    deltas, scales = dict(weights.deltas), {}
    for module, edits in weights.edits.items():
        if f"{module}.bias" in weights.facts:
            accepted = "modules without a bias: an adapter cannot change one; take `--to merged`"
            raise InputError([Problem("adapter", None, module, "an edit on a module with a bias", accepted)])
        weight = weights.stored(f"{module}.weight").float()
        rows, columns = weight.shape
        delta = deltas.get(module, Delta(torch.zeros(0, columns), torch.zeros(rows, 0)))
        a, b, scale = delta.a, delta.b, torch.ones(rows)
        for edit, strength in edits:
            amount = strength * edit.weight
            if not amount:
                continue
            u, w, rows_a, rows_b = (torch.from_numpy(getattr(edit, name)) for name in "uwab")
            effective = weight.addmm(b, a) * scale.unsqueeze(1)
            # Rows are scaled after the change, so what is projected is what the earlier edits left of them.
            a = torch.cat([a, (w @ effective).unsqueeze(0)])
            b = torch.cat([b, (-amount * u / scale).unsqueeze(1)], dim=1)
            if bool(rows_a.any()):
                scale = scale * (1 - 2 * amount * rows_a + amount**2 * rows_b).clamp(min=1e-12).rsqrt()
        deltas[module] = Delta(a, b)
        if bool((scale != 1).any()):
            scales[module] = scale
    if not scales:
        return deltas, {}
    magnitudes = {}
    for module, delta in deltas.items():
        norms = weights.stored(f"{module}.weight").float().addmm(delta.b, delta.a).norm(dim=1)
        magnitudes[module] = norms * scales.get(module, torch.ones_like(norms))
    return deltas, magnitudes


def even_ranks(deltas: dict[str, Delta]) -> tuple[int, dict[str, Delta]]:
    """The largest rank, and all deltas padded with zeros to it: one rank for all is what every loader knows."""
    rank = max(len(delta.a) for delta in deltas.values())

    def padded(delta: Delta) -> Delta:
        more = rank - len(delta.a)
        a = torch.cat([delta.a, torch.zeros(more, delta.a.shape[1])])
        return Delta(a, torch.cat([delta.b, torch.zeros(delta.b.shape[0], more)], dim=1))

    return rank, {module: padded(delta) for module, delta in deltas.items()}


def write_peft(weights: MergedWeights, adapter: Path | None, base_id: str, out: Path) -> None:
    """``adapter_model.safetensors`` and ``adapter_config.json``; the run's own files where there is nothing to fold."""
    if not weights.edits:
        assert adapter is not None
        shutil.copyfile(adapter / "adapter_model.safetensors", out / "adapter_model.safetensors")
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    else:
        deltas, magnitudes = folded(weights)
        rank, deltas = even_ranks(deltas)
        tensors: dict[str, torch.Tensor] = {}
        for module, delta in deltas.items():
            tensors[f"{PREFIX}{module}.lora_A.weight"] = delta.a.contiguous()
            tensors[f"{PREFIX}{module}.lora_B.weight"] = delta.b.contiguous()
            if magnitudes:
                tensors[f"{PREFIX}{module}.lora_magnitude_vector"] = magnitudes[module].contiguous()
        save_file(tensors, out / "adapter_model.safetensors", metadata={"format": "pt"})
        config = {
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "lora_dropout": 0.0, "bias": "none",
            "target_modules": sorted(deltas), "use_dora": bool(magnitudes), "inference_mode": True,
        }  # fmt: skip
    config["base_model_name_or_path"] = base_id
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def write_mlx(weights: MergedWeights, out: Path) -> None:
    """``adapters.safetensors`` and ``adapter_config.json`` as mlx-lm loads them: (in, rank) and (rank, out)."""
    deltas, magnitudes = folded(weights)
    rank, deltas = even_ranks(deltas)
    tensors: dict[str, torch.Tensor] = {}
    for module, delta in deltas.items():
        tensors[f"{module}.lora_a"] = delta.a.T.contiguous()
        tensors[f"{module}.lora_b"] = delta.b.T.contiguous()
        if magnitudes:
            tensors[f"{module}.m"] = magnitudes[module].contiguous()
    save_file(tensors, out / "adapters.safetensors")
    layers = (weights.config.get("text_config") or weights.config)["num_hidden_layers"]
    config: dict[str, Any] = {
        "fine_tune_type": "dora" if magnitudes else "lora",
        "num_layers": layers,
        "lora_parameters": {"rank": rank, "scale": 1.0, "dropout": 0.0, "keys": _keys(list(deltas))},
    }
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def _keys(modules: list[str]) -> list[str]:
    """Names inside a layer (``self_attn.q_proj``), and whole names of modules outside the layers."""
    keys = set()
    for module in modules:
        words = module.split(".")
        place = next((place for place, word in enumerate(words) if word.isdigit()), None)
        keys.add(module if place is None else ".".join(words[place + 1 :]))
    return sorted(keys)
