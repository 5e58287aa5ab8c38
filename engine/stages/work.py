"""What a stage's process did and how long it took, by kind of work: so that later forecasts know this machine.

The policy's methods are watched from outside, so every backend is measured alike. ``engine.forecast.rates`` keeps it when
the stage is done.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psutil

from engine.backends.interface import Completion
from engine.forecast.rates import GENERATED_AT_ONCE

SKIPPED_STEPS = 2
"""First steps of an attempt, which also warm up."""
SCORED = {"score": 1, "divergence": 2, "tempered_logprobs": 1}
"""Method of a policy -> forward passes over each row."""


class Work:
    """Sums over one attempt of a stage. Seconds are of the wall; ``cpu`` beside them is this process's own time."""

    def __init__(self) -> None:
        self.loading: dict[str, float] = {}
        self.generated: dict[tuple[int, bool, int], dict[str, float]] = {}
        """(limit of tokens, greedy?, mean length of the prompts to a tenth of it) -> sums."""
        self.scored: dict[str, dict[str, float]] = {}
        """Method of the policy -> sums."""
        self.steps: dict[str, float] = {}
        self._seen = 0
        self._cpu = time.process_time()

    @contextmanager
    def load(self) -> Iterator[None]:
        """While the policy is loaded; what the process needed until then (imports above all) is counted with it."""
        yield
        process = psutil.Process()
        times = process.cpu_times()
        self.loading = {"s": time.time() - process.create_time(), "cpu": times.user + times.system}

    def watch(self, policy: Any) -> Any:
        """Count what ``policy`` is asked for from now on."""
        generate = policy.generate

        def generated(prompts: Any, **settings: Any) -> Any:
            with self._timed() as took:
                completions = generate(prompts, **settings)
            self._generated(prompts, completions, settings, took)
            return completions

        policy.generate = generated
        for name, passes in SCORED.items():
            if hasattr(policy, name):
                setattr(policy, name, self._scoring(name, getattr(policy, name), passes))
        return policy

    def _scoring(self, name: str, method: Any, passes: int) -> Any:
        def scored(prompts: Any, completions: Any, *args: Any, **settings: Any) -> Any:
            with self._timed() as took:
                result = method(prompts, completions, *args, **settings)
            written = sum(len(one if isinstance(one, str) else one.text) for one in completions)
            sums = self.scored.setdefault(name, {})
            _add(sums, calls=1, n=passes * len(prompts), **took)
            _add(sums, prompt_characters=passes * _length(prompts), characters=passes * written)
            return result

        return scored

    def _generated(self, prompts: Any, completions: Any, settings: dict[str, Any], took: dict[str, float]) -> None:
        if not completions:
            return
        asked = round(10 * math.log(max(1, _length(prompts)) / len(prompts)))
        key = (int(settings["max_new_tokens"]), not settings["temperature"], asked)
        sums = self.generated.setdefault(key, {})
        tokens = [len(completion.tokens) for completion in completions]
        passes = decoding_passes(prompts, completions)
        _add(sums, calls=1, n=len(prompts), batches=len(passes), passes=sum(passes), tokens=sum(tokens), **took)
        _add(sums, prompt_characters=_length(prompts), characters=sum(len(one.text) for one in completions))

    @contextmanager
    def _timed(self) -> Iterator[dict[str, float]]:
        took: dict[str, float] = {}
        began, cpu = time.perf_counter(), time.process_time()
        yield took
        took["s"], took["cpu"] = time.perf_counter() - began, time.process_time() - cpu

    # ---- training ------------------------------------------------------------------------------------------------

    def step(self, values: dict[str, float]) -> None:
        """A training step, just done."""
        cpu = time.process_time() - self._cpu
        self._cpu = time.process_time()
        self._seen += 1
        if self._seen > SKIPPED_STEPS and "seconds" in values:
            _add(self.steps, n=1, s=values["seconds"], cpu=cpu, tokens=values.get("tokens", 0.0))

    def between_steps(self) -> None:
        """Evaluating and saving are done: what comes now is the next step."""
        self._cpu = time.process_time()

    # ---- out -----------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        process = psutil.Process()
        times = process.cpu_times()
        return {
            "time": time.time(),
            "s": time.time() - process.create_time(),
            "cpu": times.user + times.system,
            "load": self.loading,
            "generate": [
                {"limit": limit, "greedy": greedy, **sums} for (limit, greedy, _), sums in self.generated.items()
            ],
            "score": self.scored,
            "steps": self.steps,
        }


def decoding_passes(prompts: Sequence[Any], completions: Sequence[Completion]) -> list[int]:
    """Passes that each batch took: it goes on until its longest completion ends. Batches are of like prompt length."""
    order = sorted(range(len(prompts)), key=lambda index: _length([prompts[index]]))
    return [
        max(len(completions[index].tokens) for index in order[start : start + GENERATED_AT_ONCE])
        for start in range(0, len(order), GENERATED_AT_ONCE)
    ]


def _length(prompts: Any) -> int:
    """Characters of conversations."""
    return sum(len(message["content"]) for prompt in prompts for message in prompt)


def _add(sums: dict[str, float], **values: float) -> None:
    for name, value in values.items():
        sums[name] = sums.get(name, 0.0) + value
