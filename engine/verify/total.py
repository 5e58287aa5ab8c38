"""Several verifiers as one: the weighted mean of their rewards."""

from __future__ import annotations

import math
from collections.abc import Sequence

from engine.verify.interface import Verdict, Verifier


class Total:
    """Components are named ``verifier`` or, where the verifier has several, ``verifier.component``."""

    name = "sum"

    def __init__(self, verifiers: Sequence[Verifier], weights: Sequence[float]) -> None:
        self._verifiers = list(verifiers)
        self._weights = list(weights)
        names = [verifier.name for verifier in verifiers]
        self._names = [name if names.count(name) == 1 else f"{name}-{i + 1}" for i, name in enumerate(names)]

    @property
    def judges_answers(self) -> bool:
        return any(getattr(verifier, "judges_answers", True) for verifier in self._verifiers)

    @property
    def parts(self) -> list[Verifier]:
        return list(self._verifiers)

    def verify(self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        columns = [verifier.verify(prompts, completions, answers) for verifier in self._verifiers]
        return [self._total(row) for row in zip(*columns, strict=True)]

    def _total(self, verdicts: Sequence[Verdict]) -> Verdict:
        components: dict[str, float] = {}
        details = []
        for name, verdict in zip(self._names, verdicts, strict=True):
            components[name] = verdict.reward
            if len(verdict.components) > 1:
                components |= {f"{name}.{part}": value for part, value in verdict.components.items()}
            if verdict.detail:
                details.append(f"{name}: {verdict.detail}")
        rewards = [verdict.reward for verdict in verdicts]
        judging = [getattr(verifier, "judges_answers", True) for verifier in self._verifiers]
        correct = [one.correctness for one, judges in zip(verdicts, judging, strict=True) if judges]
        weights = [weight for weight, judges in zip(self._weights, judging, strict=True) if judges]
        return Verdict(
            _mean(rewards, self._weights), components, "; ".join(details), _mean(correct, weights) if correct else None
        )

    def close(self) -> None:
        for verifier in self._verifiers:
            verifier.close()


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """Weighted mean; exactly 1 of ones, whatever the weights: what is wholly right must count as right."""
    if all(value == values[0] for value in values):
        return values[0]
    return math.fsum(weight * value for weight, value in zip(weights, values, strict=True)) / math.fsum(weights)
