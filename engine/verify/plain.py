"""Verifiers of plain answers: numbers, text, patterns, JSON, mathematics."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from engine.verify import answers as words
from engine.verify.boxes import box_of, plainly_equal
from engine.verify.interface import Verdict
from engine.verify.numbers import exact_number, last_number
from engine.verify.workers import Called, Workers


class Number:
    """The last number of the completion, or the one in the last match of ``pattern``, is exactly the answer."""

    name = "number"

    def __init__(self, pattern: str | None = None, seconds: float = 1.0) -> None:
        self._pattern = pattern
        self._workers = Workers("text", "last_group", seconds) if pattern else None

    def verify(self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        if self._workers is None:
            found = [Called(text) for text in completions]
        else:
            found = self._workers.call([(self._pattern, text) for text in completions])
        return [self._verdict(one, answer) for one, answer in zip(found, answers, strict=True)]

    def _verdict(self, found: Called, answer: str) -> Verdict:
        if found.value is None:
            why = found.failure or f"nothing matches {self._pattern}"
            return Verdict(0.0, {"format": 0.0, "answer": 0.0}, why)
        number = exact_number(found.value) if self._pattern else last_number(found.value)
        if number is None:
            return Verdict(0.0, {"format": 0.0, "answer": 0.0}, "no number in the completion")
        right = number == exact_number(answer)
        return Verdict(
            float(right), {"format": 1.0, "answer": float(right)}, f"found {number}, wanted {answer.strip()}"
        )

    def close(self) -> None:
        if self._workers:
            self._workers.close()


class Exact:
    """The whole completion is the answer, as answers.py compares them."""

    name = "exact"

    def verify(self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        verdicts = []
        for completion, answer in zip(completions, answers, strict=True):
            right = float(words.matches(completion, answer))
            verdicts.append(Verdict(right, {"answer": right}, "" if right else f"wanted {answer!r}"))
        return verdicts

    def close(self) -> None:
        pass


MOST_REMEMBERED = 20_000


class Math:
    """math-verify's mathematical equality; what hangs or crashes it scores 0.

    Numbers and polynomials in a box are compared here (boxes.py); everything else in workers, the same box against the same
    answer once.
    """

    name = "math"

    def __init__(self, seconds: float = 3.0) -> None:
        self._workers = Workers("symbolic", "judged", seconds)
        self._remembered: dict[tuple[str, str], bool] = {}

    def verify(self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        boxes = [box_of(completion) for completion in completions]
        pairs = list(zip(boxes, answers, strict=True))
        found = [None if box is None else self._known(box, answer) for box, answer in pairs]
        asked = [i for i, one in enumerate(found) if one is None]
        self._ask(found, [(box, answer, True) for box, answer in pairs])
        for i in asked:
            one, (box, answer) = found[i], pairs[i]
            if box is not None and one is not None and one.failure is None:
                self._remember(box, answer, one.value)
        self._ask(found, [(completion, answer, False) for completion, answer in zip(completions, answers, strict=True)])
        return [self._verdict(one or Called(None), answer) for one, answer in zip(found, answers, strict=True)]

    def _ask(self, found: list[Called | None], questions: Sequence[tuple[str | None, str, bool]]) -> None:
        """Fill the gaps of ``found``; None where there is nothing to ask, and where a box says nothing."""
        open_ones = [i for i, one in enumerate(found) if one is None and questions[i][0] is not None]
        for i, called in zip(open_ones, self._workers.call([questions[i] for i in open_ones]), strict=True):
            found[i] = called if called.failure or called.value is not None else None

    def _known(self, box: str, answer: str) -> Called | None:
        equal = plainly_equal(box, answer)
        equal = self._remembered.get((box, answer)) if equal is None else equal
        return None if equal is None else Called(equal)

    def _remember(self, box: str, answer: str, equal: bool) -> None:
        if len(self._remembered) >= MOST_REMEMBERED:
            self._remembered.clear()
        self._remembered[box, answer] = equal

    def _verdict(self, called: Called, answer: str) -> Verdict:
        right = float(called.value is True)
        return Verdict(right, {"answer": right}, called.failure or ("" if right else f"wanted {answer!r}"))

    def close(self) -> None:
        self._workers.close()


class Regex:
    """The completion matches as a whole; a group named ``answer`` must be the answer too."""

    name = "regex"

    def __init__(self, pattern: str, seconds: float = 1.0) -> None:
        self._pattern = pattern
        self._asks = "answer" in re.compile(pattern).groupindex
        self._workers = Workers("text", "full_match", seconds)

    @property
    def judges_answers(self) -> bool:
        """False: only the form is judged."""
        return self._asks

    def verify(self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        called = self._workers.call([(self._pattern, completion) for completion in completions])
        return [self._verdict(one, answer) for one, answer in zip(called, answers, strict=True)]

    def _verdict(self, called: Called, answer: str) -> Verdict:
        form = float(bool(called.value and called.value["match"]))
        detail = called.failure or ("" if form else "does not match as a whole")
        if not self._asks:
            return Verdict(form, {"format": form}, detail)
        right = float(bool(form) and same_text(called.value["answer"] or "", answer))
        return Verdict(right, {"format": form, "answer": right}, detail or ("" if right else f"wanted {answer!r}"))

    def close(self) -> None:
        self._workers.close()


class Json:
    """The completion is JSON, fits the schema, and its property ``answer``, where one is named, is the answer."""

    name = "json"

    def __init__(self, schema: Any = None, answer: str | None = None, seconds: float = 1.0) -> None:
        self._schema, self._answer = schema, answer
        self._workers = Workers("text", "fits_schema", seconds)

    @property
    def judges_answers(self) -> bool:
        return self._answer is not None

    def verify(self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        texts = [_inside_fence(completion) for completion in completions]
        called = self._workers.call([(self._schema, text) for text in texts])
        return [self._verdict(*one) for one in zip(called, texts, answers, strict=True)]

    def _verdict(self, called: Called, text: str, answer: str) -> Verdict:
        wrong = called.failure or called.value
        form = float(wrong is None)
        if self._answer is None:
            return Verdict(form, {"format": form}, wrong or "")
        found = json.loads(text) if form else None
        value = found.get(self._answer) if isinstance(found, dict) else None
        stated = value if isinstance(value, str) else json.dumps(value)
        right = float(value is not None and same_text(stated, answer))
        return Verdict(right, {"format": form, "answer": right}, wrong or ("" if right else f"wanted {answer!r}"))

    def close(self) -> None:
        self._workers.close()


def same_text(found: str, answer: str) -> bool:
    """Equal as exact numbers where both are numbers, else as normalised text."""
    one, other = exact_number(found), exact_number(answer)
    return one == other if one is not None and other is not None else words.matches(found, answer)


def _inside_fence(completion: str) -> str:
    """The inside of a completion that is one fenced block, else the completion."""
    match = re.fullmatch(r"\s*```(?:json)?[ \t]*\n(.*?)\n?```\s*", completion, re.DOTALL)
    return match[1] if match else completion.strip()
