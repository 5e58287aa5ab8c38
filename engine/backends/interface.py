"""What a stage asks of a backend: load a policy by its lineage, generate, score, train. No framework type crosses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from engine.models.lineage import Lineage

Message = dict[str, str]
Conversation = list[Message]
Which = Literal["policy", "start", "base"]
"""Whose weights: the policy as trained so far, the lineage at the stage's start, or the recipe's base model."""


@dataclass(frozen=True)
class Completion:
    """One generated completion. ``tokens`` includes the end-of-turn token when ``finished``."""

    text: str
    tokens: tuple[int, ...]
    finished: bool


@dataclass(frozen=True)
class Score:
    """Log-probability of a completion given its prompt, summed over its ``tokens`` tokens, in nats."""

    logprob: float
    tokens: int
    correct: int
    """Tokens that greedy decoding would have chosen (teacher forced)."""


@dataclass(frozen=True)
class Divergence:
    """KL(policy || other) along one completion: the sum over its token positions in nats, and their number."""

    total: float
    tokens: int
    each: tuple[float, ...] = ()
    """The divergence at each position, in nats."""


class Policy(Protocol):
    """A loaded model with its adapter. Nothing here changes weights or any random state that training reads."""

    def generate(
        self,
        prompts: Sequence[Conversation],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        of: Which = "policy",
        progress: Any = None,
    ) -> list[Completion]:
        """One completion per prompt, in order. Temperature 0 is greedy; otherwise plain sampling, no top-k or top-p."""
        ...

    def score(
        self, prompts: Sequence[Conversation], completions: Sequence[str], *, of: Which = "policy", progress: Any = None
    ) -> list[Score]:
        """Teacher-forced scores of written completions, the end-of-turn token included."""
        ...

    def tempered_logprobs(
        self,
        prompts: Sequence[Conversation],
        completions: Sequence[Completion],
        temperatures: Sequence[float],
        *,
        progress: Any = None,
    ) -> list[list[float]]:
        """Log-probability in nats of each completion's tokens, summed, with the logits divided by each temperature."""
        ...

    def divergence(
        self,
        prompts: Sequence[Conversation],
        completions: Sequence[Completion],
        *,
        to: Which,
        progress: Any = None,
    ) -> list[Divergence]:
        """Exact KL(policy || ``to``) over the whole vocabulary at every position of the given completions."""
        ...

    def has(self, which: Which) -> bool:
        """Whether those weights are at hand (full fine-tuning keeps no second copy unless the method needs one)."""
        ...


@dataclass(frozen=True)
class Probe:
    """A look at the policy while it trains: KL to the stage's start in nats per token on completions sampled now, and
    the mean retention on a part of the suite (None without a suite)."""

    kl: float
    retention: float | None
    n: int
    """Completions behind the divergence."""


class TrainingLink(Protocol):
    """What the training loop reports to and obeys; implemented by the stage (engine/stages/link.py)."""

    def folder(self) -> Path: ...
    def resume_from(self) -> tuple[Path, int] | None: ...
    def step(self, step: int, total: int, values: dict[str, float]) -> None: ...
    def measured_longest(self, rows: int, length: int, memory_mib: float, seconds: float) -> None: ...
    def after_step(self, step: int, total: int) -> None: ...
    def wants_checkpoint(self, step: int, total: int) -> bool: ...
    def stop_requested(self) -> bool: ...
    def staging(self, step: int) -> Path: ...
    def seal(self, staging: Path, step: int) -> None: ...
    def sample(self, step: int, prompt: str, completion: str, values: dict[str, float]) -> None: ...
    def probe(self, step: int) -> Probe: ...
    def probed(self, step: int, probe: Probe, held: bool) -> None: ...


@dataclass(frozen=True)
class LoadSettings:
    """How a stage wants its policy loaded."""

    quantization: Literal["none", "8bit", "4bit"]
    dtype: Literal["auto", "fp32", "bf16"]
    training: Literal["lora", "full", "none"]
    """``none``: nothing is trained and no adapter is made; the lineage's is loaded frozen."""
    rank: int
    alpha: float
    dropout: float
    targets: str | list[str]
    """``all-linear``, ``attention`` or module names; read only when the lineage has no adapter yet."""
    gradient_checkpointing: bool
    seed: int
    needs_reference: bool
    """The method compares with the stage's start while it trains; full fine-tuning then keeps a second copy."""
    trust_remote_code: bool = False
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """The kernel by transformers' name; ``auto``: what the backend finds best."""
    fixed_order: bool = True
    """Sums of a training step in a fixed order, where a device has another."""


@dataclass(frozen=True)
class Sampling:
    """How a reply is drawn. Temperature 0 is greedy; the seed decides everything that is random."""

    temperature: float = 0.7
    top_p: float = 1.0
    max_new_tokens: int = 256
    seed: int = 0


@dataclass(frozen=True)
class Token:
    """One token of a reply as it is written. ``text`` may be empty while a character is not complete."""

    id: int
    text: str
    logprob: float
    """Under the model's own distribution (temperature 1, nothing cut off), in nats."""
    kl: float | None = None
    """KL(this voice || the one it is compared with) where the token was drawn, exact over the vocabulary, in nats."""
    tempered: tuple[float, ...] = ()
    """Log-probability with the logits divided by each of the temperatures that were asked for, in nats."""
    ends: bool = False
    """The end of the turn."""


@dataclass(frozen=True)
class Dial:
    """What can be turned while a voice speaks: a steering vector, or the strength of an edit."""

    name: str
    kind: Literal["vector", "edit"]
    value: float
    low: float
    high: float


class Voice(Protocol):
    """One lineage, loaded to be talked with."""

    length: int | None
    """Most tokens of conversation and reply together; None: the model says no limit."""

    def dials(self) -> list[Dial]: ...

    def dial(self, name: str, value: float) -> float:
        """Turn a dial; it acts from the next token on, also in the middle of a reply. Returns the value it now has,
        clamped to its range. Raises InputError for an unknown name."""
        ...

    def cosines(self) -> list[tuple[str, str, float]]:
        """The cosine of every two vectors: near 0 they compose, near -1 they undo each other."""
        ...

    def count(self, conversation: Conversation) -> int:
        """Tokens of a conversation with the opening of the reply."""
        ...

    def stream(
        self,
        conversation: Conversation,
        sampling: Sampling,
        *,
        against: Voice | None = None,
        temperatures: Sequence[float] = (),
    ) -> Iterator[Token]:
        """The reply token by token; dials may be turned between two of them. Several voices may speak in turns, a
        token each. ``against`` reads the same tokens for ``Token.kl``."""
        ...


class Backend(Protocol):
    """One training framework. Methods are found by name: ``engine/backends/<backend>/<method>.py`` has ``train``."""

    name: str

    def versions(self) -> dict[str, str]: ...

    def alone(self, settings: LoadSettings, optimizer: str, model: Path | None) -> None:
        """Said before anything is loaded, in a process that runs one stage and nothing else: what this stage does not
        need is not imported. ``model`` is the base's folder."""
        ...

    def load(self, lineage: Lineage, run_folder: Path, settings: LoadSettings) -> Policy: ...

    def train(self, method: str, policy: Any, rows: Any, stage: Any, link: TrainingLink) -> None:
        """Train ``policy`` in place with ``method`` on the normalized ``rows`` (engine/data) until its last step."""
        ...

    def bench(self, method: str, policy: Any) -> Any:
        """What a stage that trains nothing works with: the ``Bench`` of ``engine/backends/<backend>/<method>.py``."""
        ...

    def voices(self, lineages: Mapping[str, Lineage], run_folder: Path, settings: LoadSettings) -> dict[str, Voice]:
        """Each lineage loaded to be talked with, by its name; what they share of weights is in memory once."""
        ...

    def save_output(self, policy: Any, folder: Path) -> None:
        """Write what the stage hands on: ``adapter/`` in PEFT format, or ``model/`` after full fine-tuning."""
        ...
