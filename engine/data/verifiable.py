"""Whether the verifier that is to reward a dataset's answers knows right from wrong: tried on a sample of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.data.worked import STEP_VERIFIERS
from recipes.errors import Problem

TRIED = 200
"""Answers of a random sample that are tried."""
WANTED = 0.8
"""Share of verifiable prompts that GRPO and RLVR want to be exceeded (the source of the methods)."""
ACCEPTED_WRONG = 0.05
"""Share of accepted wrong answers over which a run refuses the verifier (engine/stages/rewarded.py)."""


@dataclass(frozen=True)
class Verifiable:
    """``share`` of ``n`` prompts whose answer is accepted while a perturbed one is rejected; ``failures``: the prompt,
    the completion and why it was judged wrongly, of a few."""

    kind: str
    share: float
    n: int
    accepts_wrong: int
    rejects_right: int
    failures: list[tuple[str, str, str]]
    steps: str = ""
    """Of a verifier of steps, for what it says of the worked steps a run would refuse it."""
    steps_warnings: list[str] = field(default_factory=list)


def try_verifier(spec: dict[str, Any], questions: Sequence[tuple[str, str]]) -> Verifiable:
    """``questions`` are prompts with their answers. Raises InputError for a verifier that cannot be opened."""
    from engine.verify.check import verifiability
    from engine.verify.check_steps import judge_steps, try_steps, unknown_number
    from engine.verify.interface import StepVerifier
    from engine.verify.registry import open_verifier

    verifier = open_verifier(spec, Path.cwd())
    prompts, answers = [prompt for prompt, _ in questions], [answer for _, answer in questions]
    refused, warnings = "", list[str]()
    try:
        found = verifiability(verifier, prompts, answers)
        if spec["kind"] in STEP_VERIFIERS and isinstance(verifier, StepVerifier):
            refused, warnings = judge_steps(verifier, try_steps(verifier, prompts, answers))
            warnings += unknown_number(verifier, prompts, answers)
    finally:
        verifier.close()
    failures = [(one.prompt[:200], one.completion[:200], one.why) for one in found.failures]
    return Verifiable(
        str(spec["kind"]), found.share, found.n, found.accepts_wrong, found.rejects_right, failures, refused, warnings
    )


def judge_verifiable(found: Verifiable, path: Path) -> tuple[list[Problem], list[str]]:
    """Problems, for which a run would refuse to begin, and warnings."""
    example = f", such as `{found.failures[0][1][:80]}` ({found.failures[0][2]})" if found.failures else ""
    if found.accepts_wrong > ACCEPTED_WRONG * found.n:
        said = f"answers of which `{found.kind}` takes {found.accepts_wrong} of {found.n} wrong ones for right{example}"
        return [
            Problem(str(path), None, None, said, "a verifier that rejects wrong answers, or answers that it can tell")
        ], []
    if found.steps:
        said = f"worked steps with which `{found.kind}` {found.steps}"
        return [Problem(str(path), None, None, said, "a verifier that rejects a step whose result is wrong")], []
    if found.share <= WANTED:
        return [], [
            *found.steps_warnings,
            f"only {found.share:.0%} of the prompts are verifiable by `{found.kind}` (n {found.n}; more than {WANTED:.0%} "
            f"is wanted){example}",
        ]
    return [], found.steps_warnings
