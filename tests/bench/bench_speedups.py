"""Speed-ups for SFT, each against the plain way, in turn in one process: what is on by default follows this table.

Rows of mixed length (16 to 256 tokens) on the lab model, fp32, one thread; and rows of one length, where leaving out padding has
nothing to win. The processor's seconds of the timed steps: another program on the machine changes them least.
"""

from __future__ import annotations

import os

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")

import contextlib
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from engine.backends import open_backend
from engine.backends.pytorch import end_to_end, sft
from engine.backends.tokens import encode_conversation
from engine.models.lineage import Base, Lineage
from recipes.resources import resolve_model
from tests.bench import bench_step_rate
from tests.bench.bench_verify import cpu_seconds

STEPS, SKIPPED, ROUNDS, BATCH = 24, 8, 3, 8
SHORTEST, LONGEST, EVEN = 16, 256, 120
WORDS = "the harbor is a lovely place to be and it has water".split()


class Link(bench_step_rate.LoggingLink):
    """Processor's seconds at the end of each step, and the losses."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.began = cpu_seconds()
        self.begun = 0.0
        """Seconds until the first timed step, with what compilers took in processes of their own."""
        self.losses: list[float] = []
        self.tokens: list[float] = []

    def step(self, step: int, total: int, values: dict[str, float]) -> None:
        self.losses.append(values["loss"])
        self.tokens.append(values["tokens"])
        super().step(step, total, values)

    def after_step(self, step: int, total: int) -> None:
        self.marks[step] = time.process_time()
        if step == SKIPPED:
            self.begun = cpu_seconds() - self.began

    def seconds(self) -> float:
        return (self.marks[STEPS] - self.marks[SKIPPED]) / (STEPS - SKIPPED)


def conversations(tokenizer: Any, low: int, high: int) -> list[Any]:
    """64 conversations whose encoded lengths are spread evenly from ``low`` to ``high`` tokens."""
    draw = random.Random(0)
    found = []
    for place in range(64):
        wanted = low + (high - low) * place // 63
        text, row = "", []
        while True:
            longer = f"{text} {draw.choice(WORDS)}".strip()
            talk = [{"role": "user", "content": "Tell me."}, {"role": "assistant", "content": longer}]
            if row and len(encode_conversation(tokenizer, talk, 2 * high).ids) > wanted:
                break
            text, row = longer, talk
        found.append(row)
    return found


def once(rows: list[Any], *, attention: str = "auto", around: Any = None, **changes: Any) -> Link:
    """One run of SFT on a fresh policy."""
    lineage = Lineage(Base("lab", str(resolve_model("lab", Path("."))), None, {}), None, [], [], None)
    settings = replace(bench_step_rate.SETTINGS, attention=attention)
    policy = open_backend("pytorch").load(lineage, Path("."), settings)
    stage = SimpleNamespace(
        **{**vars(bench_step_rate.stage()), "steps": STEPS, "batch_size": BATCH, "max_length": LONGEST, **changes}
    )
    with tempfile.TemporaryDirectory() as folder, around(policy) if around else contextlib.nullcontext():
        link = Link(Path(folder))
        open_backend("pytorch").train("sft", policy, rows, stage, link)
    return link


@contextlib.contextmanager
def compiled(policy: Any) -> Iterator[None]:
    """The backbone compiled, as transformers does with ``torch_compile: true``; lengths are told to vary."""
    torch._dynamo.reset()
    torch._inductor.config.force_disable_caches = True  # each time as if for the first time
    end_to_end.backbone(policy.model).compile(dynamic=True)
    yield


@contextlib.contextmanager
def masked(policy: Any) -> Iterator[None]:
    """Rows end to end under one mask, as transformers and TRL do it without FlashAttention."""
    real = sft.rows_apart
    sft.rows_apart = lambda *_: contextlib.nullcontext()  # type: ignore[assignment]
    try:
        yield
    finally:
        sft.rows_apart = real


def compared(name: str, plain: Callable[[], Link], other: Callable[[], Link], wanted: str = "not shown") -> str:
    """The median ratio, the rate, how far the losses are from the plain way's, and what the first steps cost more."""
    ratios, rates, late, apart = [], [], [], 0.0
    for turn in range(ROUNDS):
        base, link = (plain(), other()) if turn % 2 else (other(), plain())[::-1]
        ratios.append(base.seconds() / link.seconds())
        rates.append(statistics.mean(link.tokens[SKIPPED:]) / link.seconds())
        late.append(link.begun - base.begun)
        apart = max(apart, *(abs(a - b) for a, b in zip(base.losses, link.losses, strict=True)))
    found = f"{statistics.median(ratios):.2f} (min {min(ratios):.2f}, max {max(ratios):.2f}, n {ROUNDS})"
    begun = (
        f"; {statistics.median(late):.0f} s more for the first {SKIPPED} steps" if statistics.median(late) > 10 else ""
    )
    return f"| {name} | {found}; {statistics.median(rates):.0f} tokens/s; losses within {apart:.1g}{begun} | {wanted} |"


def rows() -> list[str]:
    torch.set_num_threads(1)
    _, policy = bench_step_rate.load()
    mixed, even = (conversations(policy.tokenizer, *ends) for ends in ((SHORTEST, LONGEST), (EVEN, EVEN)))
    said = f"SFT steps in the same processor time, rows of {SHORTEST} to {LONGEST} tokens:"

    def plain() -> Link:
        return once(mixed)

    table = [
        compared(f"{said} padding-free against padded", plain, lambda: once(mixed, padding_free=True), "> 1"),
        compared(f"the same, rows of {EVEN} tokens", lambda: once(even), lambda: once(even, padding_free=True)),
        compared(f"{said} padding-free under one mask", plain, lambda: once(mixed, padding_free=True, around=masked)),
        compared(f"{said} eager attention against sdpa", plain, lambda: once(mixed, attention="eager")),
        compared(
            f"{said} AdamW in 8 bit (bitsandbytes) against fp32", plain, lambda: once(mixed, optimizer="adamw-8bit")
        ),
    ]
    if shutil.which("g++") is None:
        return [*table, f"| {said} compiled | no C++ compiler here | not shown |"]
    return [*table, compared(f"{said} compiled against not", plain, lambda: once(mixed, around=compiled))]
