"""Whether the verifier that is to reward a dataset's answers knows right from wrong: tried on a sample before any run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.data.worked import STEP_VERIFIERS
from engine.verify.check import ACCEPTED_WRONG, WANTED, verifiability
from recipes.errors import InputError, Problem

TRIED = 200
"""Most answers that are tried."""
FILE = "verifiability.json"
"""Where a stage's data keep what was found when the run was made."""
LEFT = "`on_gate_fail: warn`, or `gates: {verifiability: null}`"


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


def try_verifier(
    spec: Mapping[str, Any], questions: Sequence[tuple[str, str]], folder: Path | None = None
) -> Verifiable:
    """``questions`` are prompts with their answers, ``folder`` the place of the files that ``spec`` names. Raises
    InputError for a verifier that cannot be opened."""
    from engine.verify.check_steps import judge_steps, try_steps, unknown_number
    from engine.verify.interface import StepVerifier
    from engine.verify.registry import open_verifier

    verifier = open_verifier(dict(spec), folder or Path.cwd())
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


def judge_verifiable(found: Verifiable, where: str, place: str | None = None) -> tuple[list[Problem], list[str]]:
    """Problems, for which a run refuses to begin, and warnings."""
    example = f", such as {_examples(found)}" if found.failures else ""
    if found.accepts_wrong > ACCEPTED_WRONG * found.n:
        said = f"answers of which `{found.kind}` takes {found.accepts_wrong} of {found.n} wrong ones for right{example}"
        accepted = (
            "a verifier that rejects wrong answers (look at its pattern, template or file), or answers that it can tell"
        )
        return [Problem(where, None, place, said, accepted)], []
    if found.steps:
        said = f"worked steps with which `{found.kind}` {found.steps}"
        return [Problem(where, None, place, said, "a verifier that rejects a step whose result is wrong")], []
    if found.share <= WANTED:
        return [], [
            *found.steps_warnings,
            f"only {found.share:.0%} of the prompts are verifiable by `{found.kind}` (n {found.n}; more than {WANTED:.0%} "
            f"is wanted){example}",
        ]
    if found.accepts_wrong:
        said = f"`{found.kind}` takes {found.accepts_wrong} of {found.n} wrong answers for right{example}"
        return [], [*found.steps_warnings, said]
    return [], found.steps_warnings


def check_stage(
    stage: Any, index: int, on_gate_fail: str, where: str, folder: Path, spec: Mapping[str, Any]
) -> list[str]:
    """Try a stage's verifier on its prepared training rows in ``folder``, and keep what was found there.

    ``spec``: the verifier with its files as they are kept. Returns warnings. Raises InputError for one that accepts wrong
    answers, and where the gate of verifiability is lost already and would stop the run at the stage's end.
    """
    from engine.data.formats import Question
    from engine.data.prepare import load_rows
    from engine.data.verifier_files import FOLDER

    rows = [row for row in load_rows(folder / "train.jsonl")[:TRIED] if isinstance(row, Question)]
    questions = [(row.prompt[-1]["content"], row.answer or "") for row in rows]
    found = try_verifier(spec, questions, folder / FOLDER)
    (folder / FILE).write_text(json.dumps(asdict(found)), encoding="utf-8")
    problems, warnings = judge_verifiable(found, where, f"stages.{index}.verifier")
    gate = stage.gates.get("verifiability")
    if not problems and gate is not None and gate.min is not None and found.share < gate.min and on_gate_fail == "stop":
        said = f"answers of which `{found.kind}` can tell {found.share:.0%} of {found.n}, where the stage's gate wants {gate.min:.0%}"
        said += f", such as {_examples(found)}" if found.failures else ""
        accepted = f"answers in a form that it can read, another verifier, or to train all the same: {LEFT}"
        problems = [Problem(where, None, f"stages.{index}.verifier", said, accepted)]
    if problems:
        raise InputError(problems)
    return warnings


def kept(folder: Path) -> Verifiable:
    """What ``check_stage`` found."""
    return Verifiable(**json.loads((folder / FILE).read_text(encoding="utf-8")))


def _examples(found: Verifiable) -> str:
    return "; ".join(f"`{completion[:80]}` ({why})" for _, completion, why in found.failures)
