"""The weight of a divergence penalty, adapted so that the divergence stays near a target (Ziegler et al. 2019, 2.2)."""

from __future__ import annotations

GAIN = 0.1
"""How fast the weight follows: at most 2 % a step (Ziegler et al. 2019: K and the clip of the error)."""
ERROR_CLIP = 0.2


class Controller:
    """The weight of the divergence. All that it knows is in ``state``, so that a resume goes on with the same."""

    def __init__(self, coefficient: float, target: float) -> None:
        self.coefficient = coefficient
        self.target = target
        self.steps_back = 0

    def update(self, divergence: float) -> None:
        """After a step whose mean divergence per token was that much."""
        error = max(-ERROR_CLIP, min(ERROR_CLIP, divergence / self.target - 1))
        self.coefficient *= 1 + GAIN * error

    def state(self) -> dict[str, float]:
        return {"coefficient": self.coefficient, "steps_back": self.steps_back}

    def restore(self, state: dict[str, float]) -> None:
        self.coefficient, self.steps_back = state["coefficient"], int(state["steps_back"])
