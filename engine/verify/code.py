"""Code written by the model, against tests that it never sees.

The guest gets one input at a time and sends back what the code returned; what is right stays on this side, where plain JSON
values are compared by exact type. So a printed result, a changed grader or an object that equals everything gains nothing,
and a guest that ends by itself, with whatever exit code, has failed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from engine.verify.interface import Verdict
from engine.verify.sandbox.jails import Jail
from engine.verify.sandbox.pool import TRIES, Guest, Limits, Sandbox

FENCE = re.compile(r"```[ \t]*(?:python|py|python3)?[ \t]*\n(.*?)(?:\n[ \t]*```|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Tests:
    """``entry``: the function that is called; None: the program is run, from standard input to standard output."""

    entry: str | None
    cases: tuple[tuple[Any, Any], ...]


def read_tests(answer: str) -> Tests | str:
    """The tests of a row's answer, or what is wrong with it."""
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError) as error:
        return f"the answer is no JSON ({error})"
    cases = found.get("tests") if isinstance(found, dict) else None
    if not isinstance(cases, list) or not cases:
        return 'the answer has no tests: {"tests": [{"input": …, "output": …}], "entry": "name"}'
    if not all(isinstance(case, dict) and {"input", "output"} <= set(case) for case in cases):
        return "a test is no mapping with input and output"
    entry = found.get("entry")
    if entry is not None and not (isinstance(entry, str) and entry.isidentifier()):
        return f"the entry {entry!r} is no name of a function"
    return Tests(entry, tuple((case["input"], case["output"]) for case in cases))


def code_of(completion: str) -> str:
    """The last fenced block, or all of it."""
    blocks = FENCE.findall(completion)
    return str(blocks[-1]) if blocks else completion


def same(one: Any, other: Any) -> bool:
    """Equal, and of exactly the same types all the way down: 1 is neither True nor 1.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return bool(one == other)


class Code:
    name = "code"

    def __init__(self, jail: Jail, limits: Limits, reward: Literal["all", "share"] = "all") -> None:
        self._sandbox, self._reward = Sandbox(jail, limits), reward
        self._sandbox.start()

    def verify(self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        return self._sandbox.map(lambda pair: self._one(*pair), list(zip(completions, answers, strict=True)))

    def reference(self, prompt: str, answer: str) -> str:
        """A program that knows the outputs by heart: what a right completion returns, so that the tests can be tried."""
        tests = read_tests(answer)
        if isinstance(tests, str):
            return ""
        table = json.dumps([[json.dumps(given, sort_keys=True), wanted] for given, wanted in tests.cases])
        if tests.entry is None:
            return (
                f"import json, sys\ngiven = json.dumps(sys.stdin.read())\n"
                f"print([wanted for key, wanted in json.loads({table!r}) if key == given][0])"
            )
        return (
            f"import json\ndef {tests.entry}(*given):\n"
            "    keys = [json.dumps(list(given), sort_keys=True)]\n"
            "    if len(given) == 1:\n        keys.append(json.dumps(given[0], sort_keys=True))\n"
            f"    return [wanted for key, wanted in json.loads({table!r}) if key in keys][0]"
        )

    def close(self) -> None:
        self._sandbox.close()

    def _one(self, completion: str, answer: str) -> Verdict:
        tests = read_tests(answer)
        if isinstance(tests, str):
            return _verdict(0.0, 0.0, tests)
        for _ in range(TRIES):
            guest = self._sandbox.guest()
            try:
                verdict = self._judge(guest, completion, tests)
            finally:
                guest.close()
            if not guest.lost:
                break
        return verdict

    def _judge(self, guest: Guest, completion: str, tests: Tests) -> Verdict:
        become = "script" if tests.entry is None else "function"
        ready = guest.ask({"become": become, "source": code_of(completion), "entry": tests.entry})
        if "ready" not in ready:
            return _verdict(0.0, 0.0, f"does not run: {_said(ready)}")
        passed, why = 0, ""
        for given, wanted in tests.cases:
            told = guest.ask({"input": given})
            if "ended" in told:
                # Not even the tests before count: a guest must be there at the end to have done its work.
                return _verdict(0.0, 1.0, _said(told))
            if "output" in told and _right(told["output"], wanted, tests.entry is None):
                passed += 1
            else:
                why = why or f"on input {json.dumps(given)[:80]}: {_said(told)}"
                if self._reward == "all":
                    break
        if not guest.alive():
            return _verdict(0.0, 1.0, guest.ended or "it answered more than it was asked")
        share = passed / len(tests.cases)
        return _verdict(share if self._reward == "share" else float(share == 1.0), 1.0, why or f"{passed} tests pass")


def _right(output: Any, wanted: Any, printed: bool) -> bool:
    if printed:
        return isinstance(output, str) and output.split() == str(wanted).split()
    return same(output, wanted)


def _said(answer: dict[str, Any]) -> str:
    if "output" in answer:
        return f"gave {json.dumps(answer['output'])[:80]}"
    return str(answer.get("error") or answer.get("ended") or "answered out of turn")[:200]


def _verdict(tests: float, runs: float, detail: str) -> Verdict:
    return Verdict(tests, {"runs": runs, "tests": tests}, detail)
