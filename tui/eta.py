"""How long it still takes, from what the run has taken so far."""

from __future__ import annotations

from engine.runs.events import (
    AlertEvent,
    AnyEvent,
    CheckpointEvent,
    OutlookEvent,
    PhaseEvent,
    StageEvent,
    StepEvent,
    number,
)
from engine.runs.state import RunState

RECENT = 50
"""Steps whose pace counts."""
TELLING = 0.25
"""Share of the steps from which on what was done between them says how much more of it comes: two of the eight quick
evaluations are done."""


class Eta:
    """Seconds left. A stage's steps go at their recent pace; what comes between and after them takes what the stage's
    outlook says (priced by its own work so far); without one, what was forecast, corrected by how much longer the work
    before the first step took than its own forecast; without that, as long as the evaluation before.

    A stage that has not begun is taken to cost, per step and per evaluation, what the stages so far did. Before the
    first steps nothing is known and None is said.
    """

    def __init__(self) -> None:
        self._foretold: dict[int | None, dict[str, float]] = {}
        """Stage -> seconds ``before``, ``during`` and ``after`` its steps, as the log has them."""
        self._outlook: dict[int | None, dict[str, float]] = {}
        """Stage -> the same of ``during`` and ``after``, by what the stage has taken so far."""
        self._before: dict[int | None, float] = {}
        """Stage -> what its first attempt took until its steps began; a later one finds its evaluations done."""
        self._begin(0.0)

    def _begin(self, now: float) -> None:
        self._steps: list[tuple[int, float, float]] = []
        """(number, when it ended, seconds of the step alone or 0)."""
        self._stage_began = now
        self._training_began: float | None = None
        self._resumed = 0
        """The step that this attempt goes on from."""
        self._after_began: float | None = None

    def apply(self, event: AnyEvent) -> None:
        if isinstance(event, StageEvent) and event.state == "started":
            self._begin(event.time)
        elif isinstance(event, AlertEvent) and event.code == "forecast":
            self._foretold[event.stage] = dict(event.detail.get("time_s", {}).get("around", {}))
        elif isinstance(event, OutlookEvent):
            self._outlook[event.stage] = event.around
        elif isinstance(event, PhaseEvent) and event.phase == "training" and self._training_began is None:
            self._before.setdefault(event.stage, event.time - self._stage_began)
            self._training_began = event.time
        elif isinstance(event, CheckpointEvent) and event.action == "restored":
            self._resumed = event.step
        elif isinstance(event, StepEvent):
            self._steps.append((event.step, event.time, number(event.values.get("seconds", 0.0))))
            del self._steps[:-RECENT]
            self._after_began = event.time if event.step == event.total else None

    def left(self, state: RunState, now: float) -> tuple[float | None, float | None]:
        """``(seconds left of the stage, of the run)``, None where nothing is known."""
        stage = state.current
        if stage is None or len(self._steps) < 2 or stage.status != "running":
            return None, None
        first, last = self._steps[0], self._steps[-1]
        if last[0] <= first[0]:
            return None, None
        spaced = (last[1] - first[1]) / (last[0] - first[0])
        alone = [seconds for _, _, seconds in self._steps[1:]]
        before = self._before.get(stage.index, 0.0)
        foretold = self._foretold.get(stage.index, {})
        slower = before / foretold["before"] if before and foretold.get("before") else 1.0
        if stage.index in self._outlook:
            foretold, slower = self._outlook[stage.index], 1.0
        after = slower * foretold["after"] if "after" in foretold else before
        if self._after_began is not None:
            mine = max(0.0, after - (now - self._after_began))
        else:
            if min(alone) > 0:
                pace = sum(alone) / len(alone)
                pace += self._between(last, pace, stage.steps_total, slower * foretold.get("during", 0.0))
            else:  # a search's trial says no seconds of its own: all that is done lies between two of them
                pace = spaced
            mine = max(0.0, (stage.steps_total - stage.steps_done) * pace - (now - last[1])) + after
        others = sum(
            other.steps_total * spaced + 2 * before
            for other in state.stages[stage.index + 1 :]
            if other.status == "waiting"
        )
        return mine, mine + others

    def _between(self, last: tuple[int, float, float], pace: float, total: int, foretold: float) -> float:
        """Seconds that evaluating, probing and saving add to a step: as forecast until enough of it was seen."""
        done = last[0] - self._resumed
        if foretold and last[0] < TELLING * total or self._training_began is None or done <= 0:
            return foretold / max(1, total)
        return max(0.0, (last[1] - self._training_began) / done - pace)
