"""Verifiability: whether a verifier knows right from wrong, tried on the references before it teaches anything.

A prompt counts if the verifier accepts a completion that states the reference answer and rejects the same completion with a
perturbed answer in it. A verifier that accepts anything gets 0, however well the training would "succeed" on it.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from engine.verify.code import read_tests
from engine.verify.interface import Referenced, Verifier
from engine.verify.numbers import exact_number
from engine.verify.references import reference

TEMPLATES = (
    "{answer}",
    "answer {answer}.",
    "The answer is {answer}.",
    "Answer: {answer}",
    "#### {answer}",
    "\\boxed{{answer}}",
    "<answer>{answer}</answer>",
    '{"answer": {answer}}',
    '{"answer": "{answer}"}',
)
"""How right completions look in common formats; the one that is accepted most often is used."""
ACCEPTED = 0.99
"""A reward from which on an answer counts as accepted; a wrong one also where it is rewarded like the right one."""
EXAMPLES = 3
WANTED = 0.8
"""Share of verifiable prompts that GRPO and RLVR want to be exceeded (the source of the methods)."""
ACCEPTED_WRONG = 0.05
"""Share of accepted wrong answers, or steps, over which a verifier is refused: what rewards them teaches them."""


@dataclass(frozen=True)
class Failure:
    """A prompt that does not count. ``completion`` is what was judged wrongly."""

    prompt: str
    completion: str
    why: str


@dataclass(frozen=True)
class Verifiability:
    """``share`` of ``n`` prompts; ``accepts_wrong`` of them accepted the perturbed answer. ``failures`` are examples."""

    share: float
    n: int
    accepts_wrong: int
    rejects_right: int
    failures: tuple[Failure, ...]


def perturb(answers: Sequence[str], seed: int = 0) -> list[str]:
    """A wrong answer beside each right one: a number moved by a little, a word swapped with another row's, a test's output
    changed. The same for the same seed."""
    draw = random.Random(seed)
    texts = [reference(answer).answer for answer in answers]
    return [_perturbed(answer, texts, draw) for answer in answers]


def _perturbed(answer: str, others: Sequence[str], draw: random.Random) -> str:
    if not isinstance(read_tests(answer), str):
        found = json.loads(answer)
        for case in found["tests"]:
            case["output"] = _other_value(case["output"])
        return json.dumps(found)
    whole = reference(answer)
    if whole.answer != answer:
        return json.dumps({**json.loads(answer), "answer": _perturbed(whole.answer, others, draw)})
    number = exact_number(answer)
    if number is not None:  # a large one by some per cent: a tolerance of less is no mistake
        return _text(number + draw.choice([-2, -1, 1, 2, 10]) * max(1, round(abs(number) / 50)))
    if digits := list(re.finditer(r"\d+", answer)):  # an expression with numbers: one of them is moved
        match = draw.choice(digits)
        return answer[: match.start()] + str(int(match[0]) + draw.choice([1, 2])) + answer[match.end() :]
    different = sorted({other for other in others if other.strip().casefold() != answer.strip().casefold()})
    return draw.choice(different) if different else answer + " not"


def _text(number: Fraction) -> str:
    return str(number.numerator) if number.denominator == 1 else f"{number.numerator}/{number.denominator}"


def _other_value(value: Any) -> Any:
    """Of the same type, and different."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, list):
        return [*value, 0] if not value else [_other_value(value[0]), *value[1:]]
    if isinstance(value, dict):
        return {**value, "x": 0} if not value else {key: _other_value(item) for key, item in value.items()}
    return 0


def verifiability(
    verifier: Verifier,
    prompts: Sequence[str],
    answers: Sequence[str],
    perturbed: Sequence[str] | None = None,
    template: str | None = None,
) -> Verifiability:
    """Of the given prompts. ``perturbed`` is :func:`perturb` of the answers when left out. ``template``: how a right
    completion looks, with {answer} in it.

    A verifier of the form alone (a pattern, a schema) has no wrong answers: it must reject the right form cut in half.
    """
    wrong = list(perturbed) if perturbed is not None else perturb(answers)
    chosen = template or getattr(verifier, "template", None)
    right_texts, wrong_texts = _best(verifier, prompts, answers, wrong, [chosen] if chosen else list(TEMPLATES))
    if not getattr(verifier, "judges_answers", True):
        wrong_texts = [text[: len(text) // 2] for text in right_texts]
    right = verifier.verify(prompts, right_texts, answers)
    false = verifier.verify(prompts, wrong_texts, answers)
    failures, counted, accepts_wrong, rejects_right = [], 0, 0, 0
    for i, (good, bad) in enumerate(zip(right, false, strict=True)):
        if good.reward < ACCEPTED:
            rejects_right += 1
            failures.append(Failure(prompts[i], right_texts[i], f"the reference is not accepted ({good.detail})"))
        wrongly = bad.reward >= ACCEPTED or bad.reward >= good.reward > 0
        if wrongly:
            accepts_wrong += 1
            failures.append(
                Failure(
                    prompts[i],
                    wrong_texts[i],
                    f"a wrong answer is accepted (right: {reference(answers[i]).answer[:80]})",
                )
            )
        counted += good.reward >= ACCEPTED and not wrongly
    # Accepted wrong answers first: they are the worse ones.
    failures.sort(key=lambda failure: "wrong" not in failure.why)
    failures = list({(one.completion, one.why): one for one in failures}.values())
    share = counted / len(prompts) if prompts else 0.0
    return Verifiability(share, len(prompts), accepts_wrong, rejects_right, tuple(failures[:EXAMPLES]))


def _best(
    verifier: Verifier, prompts: Sequence[str], answers: Sequence[str], wrong: Sequence[str], templates: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Completions with the right and the wrong answers, in the form that the verifier accepts most of the right ones in."""
    knowing = [part for part in (verifier, *getattr(verifier, "parts", ())) if isinstance(part, Referenced)]
    if knowing:
        both = [[knowing[0].reference(*one) for one in zip(prompts, side, strict=True)] for side in (answers, wrong)]
        return both[0], both[1]
    probe = min(len(prompts), 16)

    def filled(template: str, side: Sequence[str]) -> list[str]:
        return [template.replace("{answer}", reference(answer).answer) for answer in side]

    def accepted(template: str) -> int:
        verdicts = verifier.verify(prompts[:probe], filled(template, answers[:probe]), answers[:probe])
        return sum(verdict.reward >= ACCEPTED for verdict in verdicts)

    best = templates[0] if len(templates) == 1 else max(templates, key=accepted)
    return filled(best, answers), filled(best, wrong)
