"""How long it still takes, from what the run has taken so far."""

from __future__ import annotations

from engine.runs.events import AnyEvent, PhaseEvent, StageEvent, StepEvent
from engine.runs.state import RunState

RECENT = 20
"""Steps whose pace counts."""


class Eta:
    """Seconds left. A stage's steps go at their recent pace; the evaluation after it takes as long as the one before.

    A stage that has not begun is taken to cost, per step and per evaluation, what the stages so far did. Before the
    first steps nothing is known and None is said.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[int, float]] = []
        self._stage_began = 0.0
        self._before: float | None = None
        self._after_began: float | None = None

    def apply(self, event: AnyEvent) -> None:
        if isinstance(event, StageEvent) and event.state == "started":
            self._steps, self._stage_began, self._before, self._after_began = [], event.time, None, None
        elif isinstance(event, PhaseEvent) and event.phase == "training" and self._before is None:
            self._before = event.time - self._stage_began
        elif isinstance(event, StepEvent):
            self._steps.append((event.step, event.time))
            del self._steps[:-RECENT]
            self._after_began = event.time if event.step == event.total else None

    def left(self, state: RunState, now: float) -> tuple[float | None, float | None]:
        """``(seconds left of the stage, of the run)``, None where nothing is known."""
        stage = state.current
        if stage is None or len(self._steps) < 2 or stage.status != "running":
            return None, None
        (first, began), (last, ended) = self._steps[0], self._steps[-1]
        if last <= first:
            return None, None
        pace = (ended - began) / (last - first)
        evaluation = self._before or 0.0
        if self._after_began is not None:
            mine = max(0.0, evaluation - (now - self._after_began))
        else:
            mine = max(0.0, (stage.steps_total - stage.steps_done) * pace - (now - ended)) + evaluation
        others = sum(
            other.steps_total * pace + 2 * evaluation
            for other in state.stages[stage.index + 1 :]
            if other.status == "waiting"
        )
        return mine, mine + others
