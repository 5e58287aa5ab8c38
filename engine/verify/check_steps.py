"""Whether a verifier of steps knows right steps from wrong ones, tried on the worked steps of the references.

The final answer alone (check.py) does not tell it: a verifier that takes every step for right may still be strict with
answers. A worked solution counts if its steps are accepted and make the full score, and if the same solution with the
result of one step changed has that step rejected.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from engine.verify.check import ACCEPTED, ACCEPTED_WRONG, EXAMPLES, WANTED
from engine.verify.interface import StepVerdict, StepVerifier
from engine.verify.references import reference
from engine.verify.steps import step_score

FORMS: tuple[tuple[str, str, str], ...] = (
    ("{step}", "; ", "answer {answer}."),
    ("{step}", "\n", "The answer is {answer}."),
    ("{step}", "\n", "#### {answer}"),
    ("{step}.", " ", "The answer is {answer}."),
    ("{n}. {step}", "\n", "Answer: {answer}"),
    ("Step {n}: {step}", "\n", "Answer: {answer}"),
)
"""How worked solutions look in common formats: a step, what stands between two, the end. The one is used in which most
solutions are accepted."""
MOST_TRIED = 100
"""Worked solutions that are tried at most."""
PROBED = 16
"""Solutions on which the form is chosen."""


@dataclass(frozen=True)
class StepFailure:
    """``step``: what was judged wrongly."""

    step: str
    why: str

    def __str__(self) -> str:
        return f"`{self.step[:80]}` ({self.why})"


@dataclass(frozen=True)
class StepsTried:
    """``good`` of ``n`` worked solutions count; in ``accepts_wrong`` the changed step was accepted, in ``rejects_right``
    one of the right steps was not, and ``short`` were accepted but did not make the full score."""

    n: int = 0
    good: int = 0
    accepts_wrong: int = 0
    rejects_right: int = 0
    short: int = 0
    failures: tuple[StepFailure, ...] = ()

    @property
    def refused(self) -> bool:
        return self.accepts_wrong > ACCEPTED_WRONG * self.n


@dataclass(frozen=True)
class Solution:
    """A worked solution as a completion; a step's place is from its first character to the first of what follows it."""

    text: str
    places: tuple[tuple[int, int], ...]


def write_out(steps: Sequence[str], answer: str, form: tuple[str, str, str]) -> Solution:
    one, between, end = form
    text, starts = "", []
    for number, step in enumerate(steps, 1):
        lead = one.partition("{step}")[0].replace("{n}", str(number))
        starts.append(len(text) + len(lead))
        text += one.replace("{n}", str(number)).replace("{step}", step.strip().rstrip(".;")) + between
    ends = [*starts[1:], len(text)]
    return Solution(text + end.replace("{answer}", answer), tuple(zip(starts, ends, strict=True)))


def changed_step(step: str, draw: random.Random) -> str:
    """The step with another result: of its last equation, or its last number, the number is moved; in a step without
    numbers the words are turned round."""
    after = step.rfind("=") + 1
    match = re.search(r"\d+", step[after:]) if after else None
    if match is None:
        found = list(re.finditer(r"\d+", step))
        after, match = 0, found[-1] if found else None
    if match is not None:
        moved = str(int(match[0]) + draw.choice([1, 2, 10]))
        return step[: after + match.start()] + moved + step[after + match.end() :]
    words = step.split()
    turned = " ".join(reversed(words)) if len(words) > 1 else step[::-1]
    return turned if turned != step else f"not {step}"


def try_steps(verifier: StepVerifier, prompts: Sequence[str], answers: Sequence[str], seed: int = 0) -> StepsTried:
    """Of the rows whose references have worked steps; ``n`` is 0 where none has. The same for the same seed."""
    pairs = zip(prompts, answers, strict=True)
    rows = [(prompt, answer, found) for prompt, answer in pairs if (found := reference(answer)).steps][:MOST_TRIED]
    if not rows:
        return StepsTried()
    draw = random.Random(seed)
    asked, answered = [prompt for prompt, _, _ in rows], [answer for _, answer, _ in rows]
    form = _best_form(verifier, rows[:PROBED])
    right = [write_out(found.steps, found.answer, form) for _, _, found in rows]
    verdicts = verifier.steps(asked, [one.text for one in right], answered)
    picked, wrong, changed = [], [], []
    for (_, _, found), solution, said in zip(rows, right, verdicts, strict=True):
        # Of the steps that the verifier sees as such: words beside the equations need not be any.
        seen = [place for place, span in enumerate(solution.places) if _all_accepted(said, span)]
        picked.append(draw.choice(seen or range(len(found.steps))))
        changed.append(changed_step(found.steps[picked[-1]], draw))
        steps = [*found.steps[: picked[-1]], changed[-1], *found.steps[picked[-1] + 1 :]]
        wrong.append(write_out(steps, found.answer, form))
    false = verifier.steps(asked, [one.text for one in wrong], answered)
    failures: list[StepFailure] = []
    good = accepts_wrong = rejects_right = short = 0
    for place, (prompt, answer, found) in enumerate(rows):
        step, seen_steps = picked[place], _of_steps(verdicts[place], right[place])
        score = step_score(verdicts[place], verifier.required(prompt, answer))
        bad = _takes_wrong(verdicts[place], false[place], right[place].places[step], wrong[place].places[step])
        refused = next((one for one in seen_steps if not one.accepted), None)
        fine = bool(seen_steps) and refused is None
        accepts_wrong += bad
        rejects_right += not fine
        short += fine and score < ACCEPTED
        good += fine and score >= ACCEPTED and not bad
        if bad:
            why = f"a wrong step is accepted; right: {found.steps[step][:80]}"
            failures.append(StepFailure(changed[place], why))
        if not seen_steps:
            failures.append(StepFailure(right[place].text, "no step is seen in a worked solution"))
        elif refused is not None:
            failures.append(StepFailure(_step_at(found.steps, right[place], refused), "a worked step is not accepted"))
        elif score < ACCEPTED:
            failures.append(StepFailure(right[place].text, f"the worked solution scores {score:.2f} of 1"))
    failures.sort(key=lambda one: not one.why.startswith("a wrong"))
    return StepsTried(len(rows), good, accepts_wrong, rejects_right, short, tuple(failures[:EXAMPLES]))


def judge_steps(verifier: StepVerifier, tried: StepsTried) -> tuple[str, list[str]]:
    """What the run is refused for ("" where it is not), and warnings."""
    such = f", such as {'; '.join(map(str, tried.failures))}" if tried.failures else ""
    if tried.refused:
        return f"accepts a wrong step in {tried.accepts_wrong} of {tried.n} worked solutions{such}", []
    if not tried.n and verifier.name != "steps":  # of our own it is known
        return "", ["no row has worked `steps`: whether the verifier rejects a wrong step could not be tried"]
    if tried.good < WANTED * tried.n:
        return "", [
            f"the verifier tells right steps from wrong ones in {tried.good} of {tried.n} worked solutions; more than "
            f"{WANTED:.0%} are wanted{such}"
        ]
    return "", []


def unknown_number(verifier: StepVerifier, prompts: Sequence[str], answers: Sequence[str]) -> list[str]:
    """The warning that nobody says how many steps a solution needs, for a verifier of the user's own, which may say it
    itself. Of ours the rows alone say it: engine/data/worked.py has looked at all of them."""
    if verifier.name == "steps":
        return []
    looked = list(zip(prompts, answers, strict=True))[:PROBED]
    unknown = sum(verifier.required(*row) is None for row in looked)
    if not unknown:
        return []
    return [
        f"neither the rows nor the verifier say how many steps a solution needs ({unknown} of {len(looked)} looked at): "
        "there step correctness is measured against the steps that are written, so that one true step alone counts as all "
        "of them. Add `steps` or `required` to the rows, or let the verifier give `required`, for an empty completion too"
    ]


def _best_form(verifier: StepVerifier, rows: Sequence[tuple[str, str, object]]) -> tuple[str, str, str]:
    asked, answered = [row[0] for row in rows], [row[1] for row in rows]
    found = [reference(answer) for answer in answered]

    def accepted(form: tuple[str, str, str]) -> int:
        written = [write_out(one.steps, one.answer, form) for one in found]
        verdicts = verifier.steps(asked, [one.text for one in written], answered)
        seen = [_of_steps(*both) for both in zip(verdicts, written, strict=True)]
        return sum(bool(said) and all(step.accepted for step in said) for said in seen)

    return max(FORMS, key=accepted)


def _of_steps(said: Sequence[StepVerdict], solution: Solution) -> list[StepVerdict]:
    """What was said before the final answer; everything where the whole was judged as one."""
    return [one for one in said if one.end <= solution.places[-1][1]] or list(said)


def _inside(said: Sequence[StepVerdict], place: tuple[int, int]) -> list[StepVerdict]:
    start, end = place
    return [one for one in said if start < one.end <= end]


def _all_accepted(said: Sequence[StepVerdict], place: tuple[int, int]) -> bool:
    inside = _inside(said, place)
    return bool(inside) and all(one.accepted for one in inside)


def _takes_wrong(
    right: Sequence[StepVerdict], wrong: Sequence[StepVerdict], before: tuple[int, int], after: tuple[int, int]
) -> bool:
    """Whether the changed step is accepted. A verifier that sees no step of its own there judges the whole."""
    if _inside(right, before):
        return _all_accepted(wrong, after)
    return bool(wrong) and all(one.accepted for one in wrong)


def _step_at(steps: Sequence[str], solution: Solution, verdict: StepVerdict) -> str:
    for step, (start, end) in zip(steps, solution.places, strict=True):
        if start < verdict.end <= end:
            return step
    return solution.text
