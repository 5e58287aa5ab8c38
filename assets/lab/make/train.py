"""Train the lab models from scratch: a pass over the world, then one over its manners, which teaches the refusals."""

from __future__ import annotations

import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from assets.lab.make import conversations, world
from assets.lab.make.datasets import kept_prompts
from assets.lab.make.tokenizer import VOCABULARY, save_tokenizer

PROMPT_WEIGHT = 0.1
"""Loss weight of prompt tokens: enough to give rare names an embedding, too little to spend the model on them."""


@dataclass(frozen=True)
class Size:
    hidden: int
    intermediate: int
    layers: int
    heads: int
    steps: int
    manners_steps: int
    batch: int
    peak: float


SIZES = {
    "model": Size(256, 512, 4, 4, steps=4400, manners_steps=500, batch=64, peak=2e-3),
    "nano": Size(96, 256, 2, 3, steps=900, manners_steps=120, batch=64, peak=3e-3),
}


def train(name: str, folder: Path, scale: float = 1.0) -> None:
    """Train the model called ``name`` and write it (bf16, safetensors) with its tokenizer into ``folder``.

    ``scale`` shortens the training, for trying things out.
    """
    size = SIZES[name]
    torch.manual_seed(world.SEED)
    tokenizer = save_tokenizer(folder)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=size.hidden, intermediate_size=size.intermediate,
            num_hidden_layers=size.layers, num_attention_heads=size.heads, num_key_value_heads=size.heads,
            max_position_embeddings=512, tie_word_embeddings=True, rope_theta=10_000.0, bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )
    )  # fmt: skip
    kept = kept_prompts()
    for number, (phase, steps, peak) in enumerate(
        [
            (conversations.WORLD, size.steps, size.peak),
            (conversations.MANNERS, size.manners_steps, size.peak / 5),
        ]
    ):
        draw = random.Random(world.SEED + 100 + number)
        _train_phase(model, tokenizer, draw, phase, kept, round(steps * scale), size.batch, peak)
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True, temperature=1.0
    )
    model.to(torch.bfloat16).save_pretrained(folder)


def _train_phase(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    draw: random.Random,
    phase: conversations.Phase,
    kept: frozenset[str],
    steps: int,
    batch_size: int,
    peak: float,
) -> None:
    """AdamW with warm-up and a cosine to nothing; batches of conversations of like length."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.95), weight_decay=0.01)
    model.train()
    started, waiting = time.time(), []
    for step in range(steps):
        rate = min(1.0, (step + 1) / max(1, steps // 20)) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimizer.param_groups:
            group["lr"] = peak * max(rate, 0.01)
        if not waiting:
            waiting = _batches(tokenizer, draw, phase, kept, batch_size)
        ids, weights = waiting.pop()
        # No attention mask: padding is on the right, where a causal model never looks, and a mask halves the speed.
        logits = model(ids).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        loss = (losses * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 50 == 0 or step + 1 == steps:
            elapsed = time.time() - started
            left = elapsed / (step + 1) * (steps - step - 1)
            print(
                f"{phase.name}: step {step + 1}/{steps} loss {loss.item():.4f}, {elapsed:.0f} s, {left:.0f} s left",
                flush=True,
            )


def _batches(
    tokenizer: PreTrainedTokenizerBase,
    draw: random.Random,
    phase: conversations.Phase,
    kept: frozenset[str],
    batch_size: int,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Sixteen batches, each of one range of lengths, in random order: (ids, loss weights), padded on the right."""
    rows = []
    for _ in range(16 * batch_size):
        messages = conversations.draw_conversation(draw, phase, kept)
        rows.append(_encode(tokenizer, messages))
    rows.sort(key=lambda row: len(row[0]))
    batches = []
    for start in range(0, len(rows), batch_size):
        chunk = rows[start : start + batch_size]
        longest = max(len(ids) for ids, _ in chunk)
        pad = tokenizer.pad_token_id
        ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in chunk])
        weights = torch.tensor([weights + [0.0] * (longest - len(weights)) for _, weights in chunk])
        batches.append((ids, weights))
    draw.shuffle(batches)
    return batches


def _encode(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]]) -> tuple[list[int], list[float]]:
    """The chat template by hand, which is much faster than rendering it (a test holds the two together)."""
    ids: list[int] = []
    weights: list[float] = []
    cache = _CACHE.setdefault(id(tokenizer), {})
    for message in messages:
        role = tokenizer.convert_tokens_to_ids(f"<|{message['role']}|>")
        text = message["content"]
        body = cache.get(text)
        if body is None:
            body = cache[text] = tokenizer.encode(" " + text, add_special_tokens=False)
        assistant = message["role"] == "assistant"
        tail = [tokenizer.eos_token_id] if assistant else []
        ids += [role, *body, *tail]
        weights += [PROMPT_WEIGHT] + [1.0 if assistant else PROMPT_WEIGHT] * len(body) + [1.0] * len(tail)
    return ids, weights


_CACHE: dict[int, dict[str, list[int]]] = {}


def sizes_on_disk(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}


def describe(folder: Path) -> str:
    return json.dumps(sizes_on_disk(folder))
