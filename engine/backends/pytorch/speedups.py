"""What could make a stage faster and whether it is used, in words for the stage's log."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from engine.backends.pytorch.attention import pick_attention
from engine.backends.pytorch.generation import Generation, generation_of

GROUPED = ("grpo", "rlvr")
COMPILERS = ("g++", "clang++", "c++")
COMPILED = "1.15 times the steps after 40 s of compiling at each start"
"""What ``tests/bench/bench_speedups.py`` measured: SFT of the lab model on a CPU. On CUDA it was not tried."""
WORTH_IT = 0.15
"""Share of padding from which on leaving it out is worth a word: without any it took 4 % longer, at 44 % it was 1.66 times as
fast (``tests/bench/bench_speedups.py``)."""


def told(
    policy: Any,
    stage: Any,
    installed: Callable[[str], object] | None = None,
    which: Callable[[str], str | None] = shutil.which,
) -> list[str]:
    """One line for each optional speed-up: what is used, or what is not and why. ``installed`` looks a package up, ``which``
    a program."""
    has = installed or importlib.util.find_spec
    cuda = policy.device.type == "cuda"
    lines = [f"attention: {attention(policy, has)}"]
    optimizer = getattr(stage, "optimizer", "adamw")
    if optimizer == "adamw":
        why = (
            "`optimizer: adamw-8bit` or `paged-adamw-8bit` saves its memory"
            if cuda
            else "8 bit saves memory on CUDA only"
        )
        lines.append(f"optimizer: AdamW in full precision; {why}")
    else:
        lines.append(f"optimizer: {optimizer}, by bitsandbytes")
    samples = generation_of(policy, stage, has) if getattr(stage, "method", "") in GROUPED else None
    if samples:
        lines.append(f"completions: {sampled(samples)}")
    lines.append(f"sums: {sums(policy.settings.fixed_order, cuda, samples is not None and samples.vllm)}")
    lines.append(f"torch.compile: not used, {compiling(cuda, which)}")
    return [f"speed-ups: {line}" for line in lines]


def sums(fixed: bool, cuda: bool, vllm: bool = False) -> str:
    """In which order a step adds up, and what that is for."""
    if not cuda:
        return "in a fixed order" + ("" if fixed else " all the same: here they have no other")
    if fixed and vllm:
        return (
            "in a fixed order within a step, but no checkpoint has the state of vLLM's sampler: a resume draws other "
            "completions and does not end in the same bits; with `generation: transformers` it does"
        )
    if fixed:
        return "in a fixed order, so that a resume ends in the same bits; `fixed_order: false` is faster on long padded rows"
    return "in the order of the moment, as the recipe says: a resume may end in other bits"


def attention(policy: Any, has: Callable[[str], object]) -> str:
    """The kernel that the model was loaded with, and why that one."""
    used = getattr(getattr(policy.model, "config", None), "_attn_implementation", None) or "the model's own"
    picked = pick_attention(policy.settings.attention, policy.device.type, policy.model.dtype, has)
    why = picked.why if picked.implementation in (None, used) else f"the model does not take {picked.implementation}"
    if used == "sdpa" and policy.device.type == "cuda":
        why += "; PyTorch picks its flash kernel where no mask is needed"
    return f"{used} ({why})"


def compiling(cuda: bool, which: Callable[[str], str | None]) -> str:
    """Why no step is compiled."""
    if not cuda and not any(which(name) for name in COMPILERS):
        return f"and there is no C++ compiler here ({', '.join(COMPILERS)}), which it needs on a CPU"
    if cuda:
        return f"for it was not measured on CUDA; on a CPU it pays late: {COMPILED} (SFT of the lab model)"
    return f"for it pays late: {COMPILED} (SFT of the lab model)"


def padding(lengths: Sequence[int], batch_size: int, free: bool) -> str:
    """What of a micro-batch is padding, or would be, for rows of those lengths drawn at random; and whether it is left out."""
    share = padding_share(lengths, batch_size)
    if free:
        return f"speed-ups: padding-free: the rows of a micro-batch lie end to end; {share:.0%} of it would be padding"
    said = f"speed-ups: padding-free: not used; {share:.0%} of a micro-batch is padding"
    return f"{said}: `padding_free: true` leaves it out" if share >= WORTH_IT else said


def padding_share(lengths: Sequence[int], batch_size: int) -> float:
    """Expected share of padding in a micro-batch, each row of it drawn at random and padded to the longest of them."""
    count = len(lengths)
    longest = sum(
        length * (((i + 1) / count) ** batch_size - (i / count) ** batch_size)
        for i, length in enumerate(sorted(lengths))
    )
    return 1 - sum(lengths) / count / longest if longest else 0.0


def sampled(generation: Generation) -> str:
    """Who samples the completions, and why."""
    if generation.vllm:
        return f"sampled by vLLM, in this process ({generation.why}); `generation: transformers` does without"
    return f"sampled by transformers ({generation.why})"
