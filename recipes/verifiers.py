"""The ``verifier:`` of a GRPO or RLVR stage: what decides how right a completion is. One model per kind."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from recipes.schema import Strict

Seconds = Annotated[float, Field(gt=0, le=300)]
Mebibytes = Annotated[int, Field(ge=64, le=1 << 20)]
Path = Annotated[str, Field(min_length=1)]


def _pattern(text: str | None, groups: int | None = None) -> str | None:
    if text is None:
        return None
    try:
        compiled = re.compile(text, re.DOTALL)
    except re.error as error:
        raise ValueError(f"a regular expression ({error})") from error
    if groups is not None and compiled.groups != groups:
        raise ValueError(f"a regular expression with {groups} group, found {compiled.groups}")
    return text


class _Verifier(Strict):
    template: str | None = None
    """How a right completion looks, with {answer} where the answer stands: the verifier is tried on it before it
    teaches. Usual forms are tried by themselves when it is left out."""

    @field_validator("template")
    @classmethod
    def _has_a_place(cls, value: str | None) -> str | None:
        if value is not None and "{answer}" not in value:
            raise ValueError("text with {answer} in it")
        return value

    @field_validator("seconds", mode="before", check_fields=False)
    @classmethod
    def _whole_numbers_are_numbers(cls, value: Any) -> Any:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Number(_Verifier):
    """The last number of the completion is exactly the answer."""

    kind: Literal["number"]
    pattern: str | None = None
    """Where the answer stands: a regular expression with one group; the last match counts."""
    seconds: Seconds = 1.0
    """Wall time of the pattern for a completion; a pattern that takes longer scores 0."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        return _pattern(value, groups=1)


class Exact(_Verifier):
    """The whole completion is the answer, but for case, spaces and a final full stop."""

    kind: Literal["exact"]


class Math(_Verifier):
    """Mathematical equality by math-verify: LaTeX, fractions, sets, expressions."""

    kind: Literal["math"]
    seconds: Seconds = 3.0
    """Wall time for a completion; one that takes longer scores 0."""


class Regex(_Verifier):
    """The completion matches as a whole. A group named ``answer`` must also be the answer."""

    kind: Literal["regex"]
    pattern: str
    seconds: Seconds = 1.0

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        return str(_pattern(value))


class Json(_Verifier):
    """The completion is JSON and fits the schema (JSON Schema 2020-12)."""

    kind: Literal["json"]
    json_schema: dict[str, Any] | Path | None = None
    """The schema itself, or a file with it; any JSON when left out."""
    answer: str | None = None
    """Name of a top-level property that must be the answer."""
    seconds: Seconds = 1.0


class Code(Strict):
    """The completion's code against the tests of the answer: {"tests": [{"input": …, "output": …}], "entry": "name"}.

    A list as input holds the arguments; without ``entry`` the program reads the input and prints the output.
    """

    kind: Literal["code"]
    reward: Literal["all", "share"] = "all"
    """1 if all tests pass, or the share that does."""
    cpu: Annotated[int, Field(ge=1, le=300)] = 5
    seconds: Seconds = 10.0
    memory_mib: Mebibytes = 512

    @field_validator("seconds", mode="before")
    @classmethod
    def _whole_numbers_are_numbers(cls, value: Any) -> Any:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Python(_Verifier):
    """Your own ``verify(prompt, completion, answer) -> float | dict`` in a Python file; it runs in the sandbox only.

    A dict holds components from 0 to 1, and ``reward`` (their mean when left out).
    """

    kind: Literal["python"]
    path: Path
    function: str = "verify"
    seconds: Seconds = 5.0
    memory_mib: Mebibytes = 2048


class Steps(_Verifier):
    """Chains of steps, each checked: exact arithmetic on the problem's numbers and earlier results, or equations."""

    kind: Literal["steps"]
    split: Literal["auto", "lines", "sentences", "numbered", "semicolons"] = "auto"
    separator: str | None = None
    """A regular expression between two steps, over ``split``."""
    algebra: bool = False
    """Steps with unknowns (2x + 3 = 7) are accepted when they follow from the equations before them."""
    seconds: Seconds = 3.0

    @field_validator("separator")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        return _pattern(value)


class CustomSteps(_Verifier):
    """Your own step verifier, in the sandbox: a Python file with ``steps(prompt, completion, answer)``, or any program.

    It gives {"answer": 0 … 1, "steps": [{"end": 12, "accepted": true, "required": true}, …], "required": 3 or null}. A program (any
    file that does not end in .py) reads a line of JSON with prompt, completion and answer and writes {"output": that} on a
    line, again and again.
    """

    kind: Literal["custom-steps"]
    path: Path
    function: str = "steps"
    seconds: Seconds = 5.0
    memory_mib: Mebibytes = 2048


class Component(Strict):
    verifier: VerifierSpec
    weight: Annotated[float, Field(gt=0)] = 1.0

    @field_validator("weight", mode="before")
    @classmethod
    def _whole_numbers_are_numbers(cls, value: Any) -> Any:
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Sum(_Verifier):
    """Several verifiers, weighted; the weights are scaled to a sum of 1."""

    kind: Literal["sum"]
    components: Annotated[list[Component], Field(min_length=1, max_length=16)]

    @model_validator(mode="after")
    def _flat(self) -> Sum:
        if any(isinstance(item.verifier, Sum) for item in self.components):
            raise ValueError("components that are no sums themselves")
        return self


VerifierSpec = Annotated[
    Number | Exact | Math | Regex | Json | Code | Python | Steps | CustomSteps | Sum, Field(discriminator="kind")
]
Component.model_rebuild()
Sum.model_rebuild()
