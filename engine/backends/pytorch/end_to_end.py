"""Rows laid end to end in one sequence (padding-free), each attending to itself alone.

FlashAttention takes the rows' bounds as they are. For PyTorch's own kernel transformers would make a mask as long and as wide as
all rows together, and every layer would work on all of it and keep it; here the kernel is called once for each row instead, so
that neither memory nor work is ever more than the padded rows'.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from engine.backends.pytorch.divergence import backbone, captured_hidden_states

BY_ROWS = "sdpa_by_rows"
"""Its name among transformers' attention functions. It has no mask function, so that no mask is made."""
TOLERANCES = {torch.float32: 1e-3, torch.bfloat16: 3e-2}
"""Relative difference of a row's hidden states alone and behind another one that is rounding."""
TRIED = 64
_bounds: list[int] = []
"""Where the rows of the step under way begin, and where the last one ends: plain numbers, so that no layer waits for a device."""


def attend_by_rows(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any = None,
    sliding_window: int | None = None, **kwargs: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """transformers' attention function over (1, heads, tokens, width): its sdpa function on each row of ``_bounds``."""
    parts = []
    for start, end in zip(_bounds, _bounds[1:], strict=False):
        sides = [states[:, :, start:end] for states in (query, key, value)]
        mask = None if sliding_window is None else _window(end - start, sliding_window, query.device)
        parts.append(sdpa_attention_forward(module, *sides, mask, **kwargs)[0])
    return torch.cat(parts, dim=1), None


def _window(length: int, window: int, device: torch.device) -> torch.Tensor | None:
    """The causal mask of a layer that looks back so many tokens; None where a row is no longer than that."""
    if length <= window:
        return None
    places = torch.arange(length, device=device)
    apart = places[:, None] - places[None, :]
    return ((apart >= 0) & (apart < window))[None, None]


AttentionInterface.register(BY_ROWS, attend_by_rows)


@contextlib.contextmanager
def rows_apart(model: Any, bounds: Sequence[int]) -> Iterator[None]:
    """While open (forward and backward: checkpointing runs layers again) the model attends within those rows."""
    global _bounds
    config = backbone(model).config
    used, before = config._attn_implementation, _bounds
    if "flash" not in used:
        config._attn_implementation = BY_ROWS
    _bounds = list(bounds)
    try:
        yield
    finally:
        config._attn_implementation, _bounds = used, before


def laid_out(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[dict[str, Any], list[int]]:
    """Model inputs for rows of token ids end to end, as TRL's collator makes them, and the rows' bounds."""
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    collator = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    inputs = collator([{"input_ids": list(row)} for row in rows])
    del inputs["labels"]
    inputs = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}
    return inputs, inputs["cu_seq_lens_q"].tolist()


def first_rows(inputs: dict[str, Any], count: int) -> tuple[dict[str, Any], list[int]]:
    """The first rows of a micro-batch that is laid end to end, without labels, and their bounds."""
    bounds = inputs["cu_seq_lens_q"][: count + 1]
    end, longest = int(bounds[-1]), int(bounds.diff().max())
    few = {name: inputs[name][:, :end].clone() for name in ("input_ids", "position_ids", "seq_idx")}
    return few | {
        "cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest,
    }, bounds.tolist()  # fmt: skip


def why_not(policy: Any, rows: Sequence[Sequence[int]], bf16: bool) -> str | None:
    """Why this model's rows cannot lie end to end, found by trying it on two of them; None if they can.

    Recurrent layers, and attention that takes its positions from a mask, would let one row into the next without a word.
    """
    two = [list(row)[:TRIED] for row in rows[:2]]
    config = backbone(policy.model).config
    if config._attn_implementation not in ("sdpa", "flash_attention_2"):
        return f"`{config._attn_implementation}` attention cannot keep rows apart"
    with policy.weights("policy") as model, captured_hidden_states(model) as hidden:
        for tried in ([two[1]], two):
            inputs, bounds = laid_out(tried, policy.device)
            try:
                with rows_apart(model, bounds), torch.autocast(policy.device.type, torch.bfloat16, enabled=bf16):
                    model(**inputs, use_cache=False, logits_to_keep=1)
            except torch.OutOfMemoryError:
                raise
            except (TypeError, ValueError, RuntimeError) as error:
                return f"the model does not take them ({error})"[:300]
    alone, behind = (states[0, -len(two[1]) :].float() for states in hidden)
    difference = float((behind - alone).norm() / alone.norm())
    tolerance = TOLERANCES.get(hidden[0].dtype, max(TOLERANCES.values()))
    if not difference <= (max(TOLERANCES.values()) if bf16 else tolerance):
        return f"a row behind another one has other hidden states than alone, by {difference:.2g} of their length"
    return None
