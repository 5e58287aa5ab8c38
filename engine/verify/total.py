"""Several verifiers as one: the weighted mean of their rewards."""

from __future__ import annotations

from collections.abc import Sequence

from engine.verify.interface import StepVerdict, StepVerifier, Verdict, Verifier


class Total:
    """Components are named ``verifier`` or, where the verifier has several, ``verifier.component``."""

    name = "sum"

    def __init__(self, verifiers: Sequence[Verifier], weights: Sequence[float]) -> None:
        self._verifiers = list(verifiers)
        self._weights = [weight / sum(weights) for weight in weights]
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
        reward = sum(weight * verdict.reward for weight, verdict in zip(self._weights, verdicts, strict=True))
        return Verdict(min(1.0, reward), components, "; ".join(details))

    def close(self) -> None:
        for verifier in self._verifiers:
            verifier.close()


class TotalOfSteps(Total):
    """A sum in which one verifier judges steps: its steps are the sum's."""

    def __init__(self, verifiers: Sequence[Verifier], weights: Sequence[float], stepwise: StepVerifier) -> None:
        super().__init__(verifiers, weights)
        self._stepwise = stepwise

    def steps(
        self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[str]
    ) -> list[list[StepVerdict]]:
        return self._stepwise.steps(prompts, completions, answers)

    def required(self, prompt: str, answer: str) -> int | None:
        return self._stepwise.required(prompt, answer)
