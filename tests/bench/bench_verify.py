"""Verifiers: mathematics for a step of 64 completions, and code calls a second."""

from __future__ import annotations

import contextlib
import json
import statistics
import tempfile
import time
from pathlib import Path

import psutil

from engine.verify.interface import Verifier
from engine.verify.registry import open_verifier
from engine.verify.sandbox.jails import find_jail

COMPLETIONS = 64
ROUNDS = 7
LAB_STEP = 0.9
"""Seconds of a GRPO step on the lab model, the shortest there is (100 steps took 89 s)."""
WANTED_SHARE, WANTED_CALLS = 0.05, 60
ROOTS = "With {r} in mind it is \\[ \\boxed{{\\sqrt{{2}} \\cdot {a} + 1}} \\]"
CUBES = ROOTS.replace("sqrt", "sqrt[3]")
LOGARITHMS = "With {r} in mind it is \\[ \\boxed{{1 + {a} \\cdot \\ln 2}} \\]"


def times(verifier: Verifier, completions: list[list[str]], answers: list[list[str]]) -> tuple[list[float], float]:
    """Seconds of each round, and CPU milliseconds of one completion with all processes, which a busy machine changes
    least. The rounds' completions and answers differ, so that nothing is remembered from one to the next."""
    verifier.verify([""] * 4, [f"\\boxed{{\\ln {i + 2}}}" for i in range(4)], ["x"] * 4)  # the workers start
    found = []
    used = cpu_seconds()
    for one, wanted in zip(completions, answers, strict=True):
        began = time.perf_counter()
        verdicts = verifier.verify([""] * len(one), one, wanted)
        found.append(time.perf_counter() - began)
        assert all(verdict.reward == 1.0 for verdict in verdicts), verdicts
    return found, 1000 * (cpu_seconds() - used) / sum(map(len, completions))


def cpu_seconds() -> float:
    """CPU seconds of this process, its children, and those that they have waited for."""
    own = psutil.Process()
    total = sum(own.cpu_times()[:2])
    for child in own.children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += sum(child.cpu_times()[:4])
    return total


def words(seconds: list[float], unit: float, name: str) -> str:
    scaled = sorted(unit * one for one in seconds)
    return f"{statistics.median(scaled):.1f} {name} (min {scaled[0]:.1f}, max {scaled[-1]:.1f}, n {len(scaled)})"


def rows() -> list[str]:
    found = []
    limit = f"< {1000 * WANTED_SHARE * LAB_STEP:.0f} ms ({WANTED_SHARE:.0%} of a lab GRPO step)"
    # one reference each, none seen before: the worst case; a group's completions have one, and often one answer
    forms = {
        "number": ("number", "The sum of {r} numbers is {a}.", "{a}", COMPLETIONS),
        "math": ("math", "Of {r} the result is \\boxed{{\\frac{{{b}}}{{2}}}}.", "{a}", COMPLETIONS),
        "math (an expression)": ("math", "So ${r} > x$: $\\boxed{{2x + {b}}}$.", "2(x+{a})", COMPLETIONS),
        "math (square roots)": ("math", ROOTS, "{a}\\sqrt{{2}} + 1", COMPLETIONS),
        "math (cube roots)": ("math", CUBES, "{a}\\sqrt[3]{{2}} + 1", COMPLETIONS),
        "math (by sympy, 64 answers)": ("math", LOGARITHMS, "{a}\\ln 2 + 1", COMPLETIONS),
        "math (by sympy, 8 answers)": ("math", LOGARITHMS, "{a}\\ln 2 + 1", 8),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, (kind, form, wanted, distinct) in forms.items():
            rounds, answers = [], []
            for r in range(ROUNDS):
                numbers = [1 + distinct * r + i % distinct for i in range(COMPLETIONS)]
                rounds.append([form.format(r=f"{r}.{i}", a=one, b=2 * one) for i, one in enumerate(numbers)])
                answers.append([wanted.format(a=one) for one in numbers])
            verifier = open_verifier({"kind": kind}, Path(folder))
            seconds, cpu = times(verifier, rounds, answers)
            verifier.close()
            measured = f"{words(seconds, 1000, 'ms')}, {cpu:.2f} ms CPU each"
            found.append(f"| {name} verifier, {COMPLETIONS} completions | {measured} | {limit} |")
        jail, reason = find_jail()
        if jail is None:
            return [*found, f"| code verifier | no sandbox: {reason} | ≥ {WANTED_CALLS}/s |"]
        tests = json.dumps({"tests": [{"input": [i], "output": i * i} for i in range(5)], "entry": "square"})
        source = "```python\n# {r} {i}\ndef square(x):\n    return x * x\n```"
        rounds = [[source.format(r=r, i=i) for i in range(COMPLETIONS)] for r in range(ROUNDS)]
        verifier = open_verifier({"kind": "code"}, Path(folder))
        seconds, cpu = times(verifier, rounds, [[tests] * COMPLETIONS] * ROUNDS)
        rates = [COMPLETIONS / one for one in seconds]
        verifier.close()
        name = f"code verifier ({jail.name}), calls a second, 5 tests each"
        return [*found, f"| {name} | {words(rates, 1, '/s')}, {cpu:.2f} ms CPU each | ≥ {WANTED_CALLS}/s |"]
