"""How near an export has to come to the run it was made from, and the verdict when it was loaded again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Tolerance:
    """Limits for one way to store weights. ``kl``: mean KL(run || export) in nats per token of the run's own greedy
    completions. ``agreement``: share of their tokens that the export would choose too. ``weights``: RMS error of a
    tensor over its RMS."""

    kl: float
    agreement: float
    weights: float


TOLERANCES = {
    "exact": Tolerance(kl=1e-6, agreement=0.99, weights=0.0),
    "exact in 16 bit": Tolerance(kl=5e-3, agreement=0.95, weights=0.0),
    "bf16": Tolerance(kl=2e-3, agreement=0.95, weights=4e-3),
    "f16": Tolerance(kl=2e-4, agreement=0.97, weights=1e-3),
    "q8_0": Tolerance(kl=2e-2, agreement=0.95, weights=1.5e-2),
    "8bit": Tolerance(kl=2e-2, agreement=0.95, weights=1.5e-2),
    "q4_0": Tolerance(kl=0.5, agreement=0.7, weights=0.15),
    "4bit": Tolerance(kl=0.5, agreement=0.7, weights=0.15),
}
"""By what was written. Rounding to 4 bit costs a small model much more than a large one; the limit only tells a coarse
model from a wrong one, and the figures are in the card."""
K_QUANTS = Tolerance(kl=0.5, agreement=0.7, weights=0.3)
SURVIVES = 0.5
"""Of the divergence between base and run, what the export may be away from the run: more, and the tune is lost."""
NOTICEABLE = 1e-3
"""Nats per token below which base and run are so near that nothing could tell them apart after rounding."""


@dataclass
class Comparison:
    """What the round trip found; filled by the process that loaded the export."""

    loader: str
    prompts: int = 0
    tokens: int = 0
    kl: float = 0.0
    largest: float = 0.0
    """Largest difference of a logit."""
    agreeing: int = 0
    same_outputs: int = 0
    """Greedy completions that are the run's, token by token."""
    outputs: int = 0
    kl_base: float | None = None
    tensors: int = 0
    worst_tensor: float = 0.0
    checks: list[str] = field(default_factory=list)
    """What else was looked at and found right."""
    failures: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def add_logits(self, run: Sequence[Array], export: Iterable[Array]) -> None:
        """Logits (T, V) of each prompt's completion, from the run and from the export."""
        total = 0.0
        for mine, theirs in zip(run, export, strict=True):
            if mine.shape != theirs.shape:
                self.failures.append(f"logits of shape {theirs.shape} instead of {mine.shape}")
                return
            one, other = log_softmax(mine), log_softmax(theirs)
            total += float((np.exp(one) * (one - other)).sum())
            self.largest = max(self.largest, float(np.abs(mine - theirs).max()))
            self.agreeing += int((mine.argmax(-1) == theirs.argmax(-1)).sum())
            self.tokens += len(mine)
            self.prompts += 1
        self.kl = total / max(1, self.tokens)
        if not np.isfinite(self.kl):
            self.failures.append("logits that are not finite")

    def add_outputs(self, run: Sequence[Sequence[int]], export: Iterable[Sequence[int]]) -> None:
        for mine, theirs in zip(run, export, strict=True):
            self.outputs += 1
            self.same_outputs += list(mine) == list(theirs)[: len(mine)]

    def check(self, what: str, right: bool, otherwise: str) -> None:
        if right:
            self.checks.append(what)
        else:
            self.failures.append(otherwise)

    def judge(self, tolerance: Tolerance) -> None:
        """Turn the figures into failures."""
        if self.tokens:
            if self.kl > tolerance.kl:
                self.failures.append(f"KL to the run {self.kl:.3g} nats a token, above {tolerance.kl:g}")
            share = self.agreeing / self.tokens
            if share < tolerance.agreement:
                self.failures.append(f"chooses the run's token in {share:.1%}, below {tolerance.agreement:.0%}")
            base = self.kl_base
            if base is not None and base > NOTICEABLE and tolerance.kl < 0.1 and self.kl > SURVIVES * base:
                text = f"the tune is lost: KL to the run {self.kl:.3g}, and the base's own is {base:.3g}"
                self.failures.append(text)
        if self.worst_tensor > tolerance.weights:
            self.failures.append(f"a tensor is off by {self.worst_tensor:.3g} of its size, above {tolerance.weights:g}")

    def words(self) -> str:
        """One line for people."""
        parts = [f"loaded by {self.loader}"]
        if self.tokens:
            parts.append(f"KL {self.kl:.2g} nats a token (n {self.tokens})")
            parts.append(f"same token in {self.agreeing / self.tokens:.1%}")
        if self.outputs:
            parts.append(f"{self.same_outputs} of {self.outputs} greedy completions identical")
        if self.tensors:
            parts.append(f"{self.tensors} tensors compared, worst off by {self.worst_tensor:.2g}")
        return ", ".join(parts + self.checks)


def log_softmax(logits: Array) -> Array:
    wide = logits.astype(np.float64)
    wide = wide - wide.max(-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(-1, keepdims=True))


def relative_error(wanted: Array, found: Array) -> float:
    """RMS of the difference over the RMS of what was wanted."""
    scale = float(np.sqrt(np.mean(np.square(wanted, dtype=np.float64))))
    error = float(np.sqrt(np.mean(np.square(wanted.astype(np.float64) - found))))
    return error / scale if scale else error
