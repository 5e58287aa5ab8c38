"""Exports in MLX's own forms: the conversion by mlx-lm, and loading it again with mlx-lm to compare with the run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine.export.comparison import TOLERANCES, Comparison

BITS = {"4bit": 4, "8bit": 8}


def step(request: dict[str, Any], say: Callable[..., None]) -> Any:
    if request["step"] == "mlx-convert":
        return convert(request, say)
    return check(request, say).to_json()


def convert(request: dict[str, Any], say: Callable[..., None]) -> None:
    """A merged transformers folder into mlx-lm's, quantized if asked; the merged folder is taken away."""
    from mlx_lm import convert as mlx_convert

    say("converting", 0, 1)
    bits = BITS.get(request["type"])
    options: dict[str, Any] = {"quantize": True, "q_bits": bits, "q_group_size": 64} if bits else {}
    mlx_convert(hf_path=request["merged"], mlx_path=request["out"], **options)
    say("converting", 1, 1)


def check(request: dict[str, Any], say: Callable[..., None]) -> Comparison:
    import mlx.core as mx
    from mlx_lm import load
    from mlx_lm.models.cache import make_prompt_cache

    say("loading it again", 0, 1)
    out = request["out"]
    on_base = request["form"] == "mlx-adapter"
    found = Comparison("mlx-lm")
    model, tokenizer = load(request["base"] if on_base else out, adapter_path=out if on_base else None)[:2]
    if request["precision"] == "fp32":
        model.set_dtype(mx.float32)  # as the run computes; the weights are what was stored
    probes = _Probes(Path(request["reference"]))

    def along(ids: list[int], tokens: list[int]) -> Any:
        cache = make_prompt_cache(model)
        rows = [model(mx.array([ids]), cache=cache)[0, -1]]
        for token in tokens[:-1]:
            rows.append(model(mx.array([[token]]), cache=cache)[0, -1])
        return np.array(mx.stack(rows).astype(mx.float32))

    found.kl_base = probes.kl_base
    made = []
    for number, row in enumerate(probes.rows):
        made.append(along(row["ids"], row["tokens"]))
        say("comparing logits", number + 1, len(probes.rows))
    found.add_logits(probes.logits, made)
    # Its own greedy choice along the run's tokens is its greedy completion as long as both agree.
    found.add_outputs([row["tokens"] for row in probes.rows], [rows.argmax(-1).tolist() for rows in made])
    if not on_base:
        inner = tokenizer._tokenizer
        wrong = [text for messages, text in probes.rendered if _rendered(inner, messages) != text]
        found.check("chat template the same", not wrong, "the chat template renders a conversation differently")
        ends = set(tokenizer.eos_token_ids)
        found.check(
            "ends of turn the same", set(probes.stops) <= ends, f"stops at {sorted(ends)}, the run at {probes.stops}"
        )
    found.judge(TOLERANCES[request["tolerance"]])
    return found


def _rendered(tokenizer: Any, messages: Any) -> str | None:
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)


class _Probes:
    def __init__(self, folder: Path) -> None:
        from safetensors import safe_open

        found = json.loads((folder / "probes.json").read_text(encoding="utf-8"))
        self.rows, self.stops, self.rendered = found["plain"], found["stops"], found["rendered"]
        self.kl_base = found["kl_base"]
        with safe_open(folder / "logits.safetensors", framework="np") as file:
            self.logits = [file.get_tensor(f"plain.{number}") for number in range(len(self.rows))]
