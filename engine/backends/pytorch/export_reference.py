"""What the run itself says: greedy completions of a few prompts and the logits along them, for every round trip."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from engine.backends.interface import Completion, Conversation, LoadSettings
from engine.backends.pytorch.load import load_policy
from engine.backends.pytorch.policy import TorchPolicy
from engine.backends.pytorch.vectors import VectorSet
from engine.backends.tokens import encode_prompt
from engine.models.lineage import Adapter, Base, Lineage

NEW_TOKENS = 24
TEXTS = (
    "Hello, world!",
    "  two spaces, a tab\tand a line\nbreak",
    "12 + 345 = 357; naïve café — 日本",
    "def f(x): return x",
)
CONVERSATIONS: list[Conversation] = [
    [{"role": "user", "content": "How do you do?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How do you do?"}],
    [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "One."},
        {"role": "user", "content": "Two?"},
    ],
]


def settings(precision: Any, trust_remote_code: bool = False) -> LoadSettings:
    """The whole lineage, frozen, unquantized: an export is measured against the tune, not against 4-bit noise."""
    return LoadSettings(
        quantization="none", dtype=precision, training="none", rank=1, alpha=1.0, dropout=0.0, targets="all-linear",
        gradient_checkpointing=False, seed=0, needs_reference=False, trust_remote_code=trust_remote_code,
    )  # fmt: skip


def write_reference(request: dict[str, Any], say: Callable[..., None]) -> None:
    """``probes.json`` and ``logits.safetensors`` in the request's folder."""
    data = request["lineage"]
    adapter = None if data["adapter"] is None else Adapter(**data["adapter"])
    lineage = Lineage(Base(**data["base"]), adapter, data["edits"], data["vectors"], data["confidence"])
    policy = load_policy(lineage, Path(request["run"]), settings(request["precision"], request["trust_remote_code"]))
    prompts: list[Conversation] = request["prompts"]
    tensors: dict[str, torch.Tensor] = {}
    vectors = [one for one in policy.interventions.lineage if isinstance(one, VectorSet)]
    found: dict[str, Any] = {"stops": _stops(policy), "kl_base": None}
    for variant in ("plain", "steered") if vectors else ("plain",):
        for one in vectors:
            one.active = variant == "steered"
        say("asking the run", len(tensors), 2 * len(prompts))
        completions = policy.generate(prompts, max_new_tokens=NEW_TOKENS, temperature=0.0, seed=0)
        found[variant] = [
            {"prompt": prompt, "ids": encode_prompt(policy.tokenizer, prompt), "tokens": list(one.tokens), "text": one.text,
             "finished": one.finished}
            for prompt, one in zip(prompts, completions, strict=True)
        ]  # fmt: skip
        for number, row in enumerate(found[variant]):
            tensors[f"{variant}.{number}"] = _logits(policy, row["ids"], row["tokens"])
            say("asking the run", len(tensors), 2 * len(prompts))
    for one in vectors:
        one.active = False
    plain = [Completion(row["text"], tuple(row["tokens"]), row["finished"]) for row in found["plain"]]
    apart = policy.divergence(prompts, plain, to="base") if policy.has("base") else []
    if apart:
        found["kl_base"] = sum(one.total for one in apart) / max(1, sum(one.tokens for one in apart))
    found["rendered"] = [
        [messages, text] for messages in CONVERSATIONS if (text := rendered(policy.tokenizer, messages))
    ]
    found["encoded"] = [[text, policy.tokenizer(text, add_special_tokens=False)["input_ids"]] for text in TEXTS]
    found["template"] = policy.tokenizer.chat_template
    folder = Path(request["reference"])
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "logits.safetensors")
    (folder / "probes.json").write_text(json.dumps(found), encoding="utf-8")


def rendered(tokenizer: Any, messages: Conversation, template: str | None = None) -> str | None:
    """A conversation as text up to the assistant's turn; None where the template refuses it."""
    try:
        return tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False, **({"chat_template": template} if template else {})
        )
    except Exception:  # a template may raise anything: no system role, turns that must alternate
        return None


def _stops(policy: TorchPolicy) -> list[int]:
    stops = policy.model.generation_config.eos_token_id
    stops = stops if stops is not None else policy.tokenizer.eos_token_id
    return list(stops) if isinstance(stops, list) else [stops]


def _logits(policy: TorchPolicy, ids: list[int], tokens: list[int]) -> torch.Tensor:
    """(T, V) that predict the T tokens of a completion, in float32."""
    rows = torch.tensor([ids + tokens], device=policy.device)
    starts = torch.tensor([len(ids) - 1], device=policy.device)
    with policy.weights("policy") as model, policy.interventions.batch(starts):
        output = model(input_ids=rows, attention_mask=torch.ones_like(rows), use_cache=False)
    return output.logits[0, len(ids) - 1 : -1].float().cpu().contiguous()
