"""The evaluations around and during a training stage: measured once, told as events, turned into gates."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from engine.backends.interface import Completion, Conversation, Policy, Probe, Which
from engine.evaluate.drift import length_ratio, measure_kl
from engine.evaluate.gates import GateResult, decide
from engine.evaluate.measurement import Measurement
from engine.evaluate.retention import ABLE, load_suite, measure_suite, retention
from engine.evaluate.warning_signs import GAUGES, KEPT, warning_signs
from engine.runs.events import MetricEvent, SampleEvent
from engine.stages.context import StageContext
from engine.stages.gating import gate_event, limits_of
from engine.stages.results import Results
from engine.verify.judge import Judge
from engine.verify.refusal import Forms

When = Literal["before", "during", "after"]
HISTORY = "history.json"
NONE_ABLE = f"the model was right on {ABLE:.0%} of no task of the capability suite before"
Held = TypeVar("Held", Judge, Forms)
REFERENCES: dict[Which, str] = {"start": "kl", "base": "kl_base"}


class Evaluation(ABC):
    """What a method is judged by. Subclasses say what is measured; here is when, where it is kept and who is told."""

    def __init__(self, context: StageContext) -> None:
        self.context = context
        self.stage: Any = context.stage
        self.suite = load_suite(context.run.suite, self.stage.evaluation.suite_n)
        self.policy: Policy | None = None
        """Set by the stage once the policy is loaded."""
        self.history: dict[int, dict[str, float]] = {}
        self._recent: dict[str, deque[float]] = {}
        self._seen: set[str] = set()
        self._held: list[Judge | Forms] = []

    # ---- what training says of itself ----------------------------------------------------------------------------

    kept_gauges: tuple[str, ...] = ()
    """Gauges of every step that a gate looks back on; kept in each checkpoint."""

    def remember(self, step: int, values: dict[str, float]) -> None:
        """Called after every step with its gauges."""
        kept = {name: values[name] for name in self.kept_gauges if name in values}
        if kept:
            self.history[step] = kept
        self._notice(step, values)

    def save_history(self, folder: Path) -> None:
        kept = {"gauges": self.history, "recent": {name: list(last) for name, last in self._recent.items()}}
        (folder / HISTORY).write_text(json.dumps({**kept, "signs": sorted(self._seen)}))

    def load_history(self, folder: Path) -> None:
        """What the gates and the warning signs look back on, as it was at that checkpoint."""
        if not (folder / HISTORY).is_file():
            return
        found = json.loads((folder / HISTORY).read_text())
        if "gauges" not in found:  # a checkpoint of an earlier version
            found = {"gauges": found, "recent": {}, "signs": []}
        self.history = {int(step): values for step, values in found["gauges"].items()}
        self._recent = {name: deque(last, maxlen=KEPT) for name, last in found["recent"].items()}
        self._seen = set(found["signs"])

    def _notice(self, step: int, values: dict[str, float]) -> None:
        """An alert when a warning sign begins, and again only after it was gone."""
        for name in GAUGES:
            if name in values:
                self._recent.setdefault(name, deque(maxlen=KEPT)).append(values[name])
        gate = self.stage.gates.get("kl")
        recent = {name: list(last) for name, last in self._recent.items()}
        signs = warning_signs(self.context.method, recent, gate.max if gate is not None else None)
        for sign in signs:
            if sign.code not in self._seen:
                self.context.alert(sign.level, sign.code, str(sign), step=step)
        self._seen = {sign.code for sign in signs}

    @abstractmethod
    def measure(self, when: When, step: int) -> list[Measurement]:
        """Everything but the suite, measured on the policy as it is now."""

    @abstractmethod
    def sample_prompts(self) -> Sequence[Conversation]:
        """Held-out prompts, in a fixed order; the first few are shown with their generations."""

    def quick(self, step: int) -> list[Measurement]:
        """Cheap measurements at ``loss_every`` steps; none by default."""
        return []

    def confidence(self) -> dict[str, Any] | None:
        """Confidence settings that the stage hands on in place of those it was given; None keeps them."""
        return None

    def held(self, judge: Held) -> Held:
        """The judge, whose processes end with the evaluation; a pattern of it that comes to no end is told once."""
        judge.tell(lambda text: self.context.alert("warning", "endless-pattern", text))
        self._held.append(judge)
        return judge

    def close(self) -> None:
        """End the judges' processes: called once, however the stage ends."""
        for judge in self._held:
            judge.close()

    def probe(self, step: int) -> Probe:
        """A look at the policy for a method with a trust region; others have none."""
        raise NotImplementedError(f"{self.context.method} has no trust region")

    # ---- when ----------------------------------------------------------------------------------------------------

    def before(self) -> list[Measurement]:
        measured = self._full("before", 0)
        self.context.results.value("unmeasurable", self._tell_unmeasurable)  # once, whatever is resumed
        return measured

    def _tell_unmeasurable(self) -> dict[str, str]:
        """Gates that will fail because nothing can measure their figure, and why: told before hours are spent on them."""
        gates = {gate: why for gate in limits_of(self.stage.gates) if (why := self.unmeasurable(gate))}
        for gate, why in gates.items():
            text = f"the gate `{gate}` will fail, for nothing can measure it: {why}"
            self.context.alert("warning", "no-figure", text)
        return gates

    def after(self) -> list[Measurement]:
        return self._full("after", self.stage.steps)

    def during(self, step: int) -> None:
        """Called after every step but the last. A full evaluation also decides the gates, so that a rollback has
        checkpoints to go back to."""
        settings = self.stage.evaluation
        if settings.every and step % settings.every == 0:
            measured = self._full("during", step)
            results, _ = self.gates(measured)
            for result in results:
                self.context.channel.emit(gate_event(result, step))
            if results and all(result.passed for result in results):
                self.context.checkpoints.mark_passed(step)
        every = settings.loss_every or max(1, self.stage.steps // 8)
        if step % every == 0:
            self._tell(self.context.results.measured(f"quick-{step:06d}", lambda: self.quick(step)), "during", step)

    def _full(self, when: When, step: int) -> list[Measurement]:
        name = when if when != "during" else f"step-{step:06d}"
        measured = self.context.results.measured(name, lambda: self._measure_all(when, step))
        self._tell(measured, when, step)  # also when read from disk: the log may have lost them to a kill
        return measured

    def _measure_all(self, when: When, step: int) -> list[Measurement]:
        measured = self.measure(when, step)
        if self.suite:
            progress = self.context.phase("evaluating", f"capability suite, {when}", "answers")
            suite = measure_suite(self._policy(), self.suite, self.context.seed_for(step, "suite"), progress)
            measured += suite
            if when != "before":
                measured += retention(self._stored("before"), suite)
            recipe_start = self.base_suite()
            if recipe_start is not None and (when != "before" or self.context.index > 0):
                measured += retention(recipe_start, suite, "retention_base")
        self._show_samples(step)
        return measured

    def base_suite(self) -> list[Measurement] | None:
        """The suite on the recipe's base: the first stage's measurements before it trained."""
        context = self.context
        if context.index == 0:
            return context.results.read("before")
        first = context.recipe.stages[0]
        return Results(context.run.stage_folder(0, first.method) / "evaluations").read("before")

    # ---- gates ---------------------------------------------------------------------------------------------------

    def gates(self, measured: Sequence[Measurement]) -> tuple[list[GateResult], dict[str, str]]:
        """``(results, gate -> why nothing measured it)``. What is excused is in neither."""
        figures = {measurement.name: measurement for measurement in [*measured, *self.derived(measured)]}
        results, missing = decide(limits_of(self.stage.gates), figures)
        return results, {name: self.unmeasured(name) for name in missing if not self.excused(name)}

    def excused(self, gate: str) -> bool:
        """Whether nothing could measure that gate's figure, and that is no fault."""
        return False

    def unmeasured(self, gate: str) -> str:
        """Why nothing measured that gate's figure."""
        return self.unmeasurable(gate) or "it is no figure of this stage as it is set"

    def unmeasurable(self, gate: str) -> str:
        """Why nothing will ever measure that gate's figure, as far as it is known before training; else empty."""
        before = self._stored("before")
        if gate.startswith("retention") and not retention(before, before):
            return f"{NONE_ABLE}; `suite:` names another" if self.suite else "there is no capability suite"
        for which, name in REFERENCES.items():
            if gate in (name, f"{name}_sequence") and not self._policy().has(which):
                return "a full fine-tuning has no copy of the model that it is measured against"
        return ""

    def derived(self, measured: Sequence[Measurement]) -> list[Measurement]:
        """Figures that compare with the stage's start, such as gains."""
        return []

    # ---- helpers -------------------------------------------------------------------------------------------------

    def _policy(self) -> Policy:
        if self.policy is None:
            raise RuntimeError("the policy is not loaded yet")
        return self.policy

    def _stored(self, name: str) -> list[Measurement]:
        return self.context.results.read(name) or []

    def _tell(self, measured: Sequence[Measurement], when: When, step: int) -> None:
        tell(self.context, measured, when, step)

    def _stored_quick(self, name: str) -> list[float]:
        """That figure at every quick evaluation so far, in order."""
        points = []
        for path in sorted(self.context.results.folder.glob("quick-*.json")):
            points += [one.value for one in self.context.results.read(path.stem) or [] if one.name == name]
        return points

    def sampled(self, step: int, prompts: Sequence[Conversation], detail: str) -> list[Completion]:
        """Completions at temperature 1 from the policy, the ground of the KL gate and the preferred share."""
        return self._policy().generate(
            prompts,
            max_new_tokens=self.stage.evaluation.max_new_tokens,
            temperature=1.0,
            seed=self.context.seed_for(step, "samples"),
            progress=self.context.phase("evaluating", detail, "completions"),
        )

    def drift(self, prompts: Sequence[Conversation], samples: Sequence[Completion]) -> list[Measurement]:
        """Length against the stage's start, and the exact KL to it and to the recipe's base, on the policy's samples."""
        before = next(one for one in self._stored("before") if one.name == "completion_length")
        measured = [length_ratio(before.value, samples)]
        for which, name in REFERENCES.items():
            if self._policy().has(which):
                progress = self.context.phase("evaluating", f"divergence from the {which}", "completions")
                measured += measure_kl(self._policy(), prompts, samples, to=which, name=name, progress=progress)
        return measured

    def _show_samples(self, step: int) -> None:
        prompts = list(self.sample_prompts())[: self.stage.evaluation.samples]
        if not prompts:
            return
        completions = self._policy().generate(
            prompts,
            max_new_tokens=self.stage.evaluation.max_new_tokens,
            temperature=0.0,
            seed=self.context.seed_for(step, "shown"),
        )
        for prompt, completion in zip(prompts, completions, strict=True):
            self.context.channel.emit(
                SampleEvent(step=step, prompt=prompt[-1]["content"], completion=completion.text, values={}, label="")
            )


def tell(context: StageContext, measured: Sequence[Measurement], when: When, step: int) -> None:
    """Measured figures as events."""
    for one in measured:
        context.channel.emit(
            MetricEvent(
                name=one.name, value=one.value, n=one.n, step=step, when=when, low=one.low, high=one.high,
                detail=one.detail,
            )
        )  # fmt: skip
