"""Users' own verifiers, run in the sandbox only: a Python function, or a step verifier as a function or any program.

One guest judges a batch (it is the user's code, not the model's); an item on which it fails, hangs or ends scores 0, and the
next one gets a fresh guest. A verifier that executes completions does not belong here but in the kind ``code``.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.verify.interface import StepVerdict, Verdict
from engine.verify.references import own_answer, reference
from engine.verify.sandbox.jails import Jail
from engine.verify.sandbox.pool import TRIES, Guest, Limits, Sandbox
from engine.verify.steps import step_score

LIFE = 3600.0
"""Seconds of a guest at most: a batch's."""


class _Custom:
    def __init__(self, jail: Jail, path: Path, function: str, seconds: float, memory_mib: int) -> None:
        program = path.suffix != ".py"
        if program:
            jail = type(jail)(extra=(*jail.extra, str(path.resolve())))
        self._seconds = seconds
        limits = Limits(cpu=LIFE, wall=LIFE, memory_mib=memory_mib)
        self._sandbox = Sandbox(jail, limits, library=not program, threads=True, execute=program)
        self._sandbox.start()
        if program:
            self._first = {"become": "program", "path": str(path.resolve())}
        else:
            source = path.read_text(encoding="utf-8")
            self._first = {"become": "verifier", "source": source, "entry": function}

    def close(self) -> None:
        self._sandbox.close()

    def _ask(self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[str]) -> list[dict[str, Any]]:
        """What it said of each: {"output": value}, or {"error" or "ended": words}. It sees the row's own answer: what the
        row's columns say of steps is not its to parse."""
        idle: queue.SimpleQueue[Guest] = queue.SimpleQueue()

        def one(item: tuple[str, str, str]) -> dict[str, Any]:
            for _ in range(TRIES):
                guest, told = attempt(item)
                if not guest.lost:
                    break
            return told

        def attempt(item: tuple[str, str, str]) -> tuple[Guest, dict[str, Any]]:
            try:
                guest = idle.get_nowait()
            except queue.Empty:
                guest = self._sandbox.guest()
                started = guest.ask(self._first, self._seconds)
                if "ready" not in started:
                    guest.close()
                    return guest, started
            prompt, completion, answer = item
            told = guest.ask({"prompt": prompt, "completion": completion, "answer": answer}, self._seconds)
            if "ended" not in told:
                idle.put(guest)
            return guest, told

        try:
            return self._sandbox.map(one, list(zip(prompts, completions, map(own_answer, answers), strict=True)))
        finally:
            while not idle.empty():
                idle.get().close()


class Python(_Custom):
    """``verify(prompt, completion, answer) -> float | dict``; a dict's parts are the components."""

    name = "python"

    def verify(self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        return [_verdict(told) for told in self._ask(prompts, completions, answers)]


class CustomSteps(_Custom):
    """``{"answer": 0 … 1, "steps": [{"end", "accepted", "required"}], "required": n or null}`` of each completion."""

    name = "custom-steps"

    def verify(self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        verdicts = []
        asked = self._ask(prompts, completions, answers)
        for told, completion, answer in zip(asked, completions, answers, strict=True):
            found = _read_steps(told, completion)
            if isinstance(found, str):
                verdicts.append(Verdict(0.0, {"answer": 0.0, "steps": 0.0}, found))
            else:
                score = step_score(found.steps, reference(answer).required or found.required)
                detail = (
                    f"answer {found.answer:g}, {sum(step.accepted for step in found.steps)} of {len(found.steps)} steps"
                )
                verdicts.append(Verdict(found.answer, {"answer": found.answer, "steps": score}, detail))
        return verdicts

    def steps(
        self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[str]
    ) -> list[list[StepVerdict]]:
        said = zip(self._ask(prompts, completions, answers), completions, strict=True)
        return [[] if isinstance(found := _read_steps(*one), str) else found.steps for one in said]

    def required(self, prompt: str, answer: str) -> int | None:
        """What the row's answer says; else what the verifier says of it, asked with an empty completion."""
        if known := reference(answer).required:
            return known
        found = _read_steps(self._ask([prompt], [""], [answer])[0], "")
        return None if isinstance(found, str) else found.required


class _Said:
    def __init__(self, answer: float, steps: list[StepVerdict], required: int | None) -> None:
        self.answer, self.steps, self.required = answer, steps, required


def _share(value: Any) -> float | None:
    """A number from 0 to 1; a bool counts as one. None for anything else."""
    return float(value) if type(value) in (int, float, bool) and 0 <= value <= 1 else None


def _verdict(told: dict[str, Any]) -> Verdict:
    if "output" not in told:
        return Verdict(0.0, {}, str(told.get("error") or told.get("ended"))[:300])
    found = told["output"]
    if not isinstance(found, dict):
        reward = _share(found)
        if reward is None:
            return Verdict(0.0, {}, f"the verifier gave {str(found)[:80]!r} instead of a number from 0 to 1")
        return Verdict(reward, {"verifier": reward}, f"the verifier gave {reward:g}")
    parts = {name: _share(value) for name, value in found.items() if name not in ("reward", "detail")}
    numbers = [value for value in parts.values() if value is not None]
    mean = sum(numbers) / len(numbers) if numbers else None
    reward = _share(found["reward"]) if "reward" in found else mean
    if reward is None or len(numbers) != len(parts):
        return Verdict(0.0, {}, f"the verifier gave {str(found)[:80]} instead of numbers from 0 to 1")
    return Verdict(
        reward, dict(zip(parts, numbers, strict=True)), str(found.get("detail", f"the verifier gave {found}"))[:300]
    )


def _read_steps(told: dict[str, Any], completion: str) -> _Said | str:
    if "output" not in told:
        return str(told.get("error") or told.get("ended"))[:300]
    found = told["output"]
    wrong = f"the verifier gave {str(found)[:80]!r} instead of answer, steps and required"
    if not isinstance(found, dict) or not isinstance(found.get("steps"), list):
        return wrong
    answer, required = _share(found.get("answer")), found.get("required")
    if answer is None or not (required is None or (type(required) is int and required > 0)):
        return wrong
    steps, before = [], 0
    for one in found["steps"]:
        end = one.get("end") if isinstance(one, dict) else None
        if type(end) is not int or not before < end <= len(completion) or type(one.get("accepted")) is not bool:
            return f"the verifier gave a step {str(one)[:80]!r} that is not after the one before, or says nothing"
        steps.append(StepVerdict(end, one["accepted"], one.get("required", True) is True))
        before = end
    return _Said(answer, steps, required)
