"""What a verifier is: it says of each completion how right it is, from 0 to 1, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Verdict:
    """``reward`` in [0, 1] is what trains; ``components`` the rewards it is made of, each in [0, 1]; ``detail`` says why in
    words, for the log and the sample viewer; ``correct`` in [0, 1]: the correctness alone, where the reward is more."""

    reward: float
    components: dict[str, float] = field(default_factory=dict)
    detail: str = ""
    correct: float | None = None

    @property
    def correctness(self) -> float:
        return self.reward if self.correct is None else self.correct


@dataclass(frozen=True)
class StepVerdict:
    """``end``: character offset in the completion just after the step. ``required``: the solution needs the step;
    an accepted step that is not required is true, but idle."""

    end: int
    accepted: bool
    required: bool = True


class Verifier(Protocol):
    """``prompts`` are the last user message's text, ``completions`` the generated text, ``answers`` the references."""

    name: str

    def verify(self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[str]) -> list[Verdict]: ...

    def close(self) -> None: ...


@runtime_checkable
class StepVerifier(Protocol):
    name: str

    def verify(self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[str]) -> list[Verdict]: ...

    def close(self) -> None: ...

    def steps(
        self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[str]
    ) -> list[list[StepVerdict]]: ...

    def required(self, prompt: str, answer: str) -> int | None:
        """How many steps a solution needs, when that is known."""


@runtime_checkable
class Referenced(Protocol):
    """A verifier that knows how a right completion looks, so that it can be checked before it teaches (check.py)."""

    def reference(self, prompt: str, answer: str) -> str: ...
