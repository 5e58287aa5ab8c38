"""SFT: teach what the conversations show, and replay the model's own answers so that it does not forget the rest."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

from engine.backends.interface import Conversation
from engine.data.formats import Conversation as ConversationRow
from engine.data.formats import Question
from engine.data.prepare import load_conversations, load_general, load_heldout
from engine.evaluate.drift import mean_length
from engine.evaluate.gates import gain
from engine.evaluate.heldout import accuracy, heldout_loss
from engine.evaluate.measurement import Measurement
from engine.evaluate.statistics import falling_trend
from engine.stages.context import StageContext, derived_seed
from engine.stages.evaluation import Evaluation, When
from engine.stages.general import own_answers
from engine.stages.training import run_training_stage

REPLAY_SOURCES = 2500
"""Most prompts that are answered for replay; a stage repeats them if its share needs more rows."""


def run(context: StageContext) -> bool:
    return run_training_stage(
        context, SftEvaluation(context), lambda policy: training_rows(context, policy), needs_reference=False
    )


class SftEvaluation(Evaluation):
    """Held-out loss and its trend, perplexity, accuracy (exact answers, else per token), KL, retention."""

    def __init__(self, context: StageContext) -> None:
        super().__init__(context)
        rows = load_heldout(context.data)
        self.prompts: list[Conversation] = []
        self.completions: list[str] = []
        self.answers: list[str] | None = [] if rows and all(isinstance(row, Question) for row in rows) else None
        for row in rows:
            if isinstance(row, Question) and row.answer is not None:
                self.prompts.append(list(row.prompt))
                self.completions.append(row.answer)
                if self.answers is not None:
                    self.answers.append(row.answer)
            elif isinstance(row, ConversationRow):
                last = max(i for i, message in enumerate(row.messages) if message["role"] == "assistant")
                self.prompts.append(list(row.messages[:last]))
                self.completions.append(row.messages[last]["content"])

    def sample_prompts(self) -> Sequence[Conversation]:
        return self.prompts

    def unmeasurable(self, gate: str) -> str:
        if gate == "accuracy" and self.answers is None:
            return "the held-out rows are no questions with answers; `token_accuracy` is measured"
        return super().unmeasurable(gate)

    def quick(self, step: int) -> list[Measurement]:
        return heldout_loss(self._policy(), self.prompts, self.completions)[:1]

    def measure(self, when: When, step: int) -> list[Measurement]:
        phase = self.context.phase
        policy = self._policy()
        measured = heldout_loss(
            policy, self.prompts, self.completions, phase("evaluating", f"held-out loss, {when}", "rows")
        )
        if self.answers is not None:
            completions = policy.generate(
                self.prompts,
                max_new_tokens=self.stage.evaluation.max_new_tokens,
                temperature=0.0,
                seed=self.context.seed_for(step, "answers"),
                progress=phase("evaluating", f"held-out answers, {when}", "answers"),
            )
            measured.append(accuracy(self.answers, completions))
        sampled_prompts = self.prompts[: self.stage.evaluation.prompts]
        samples = self.sampled(step, sampled_prompts, f"sampled completions, {when}")
        if when == "before":
            measured.append(Measurement("completion_length", mean_length(samples), len(samples)))
        else:
            measured += self.drift(sampled_prompts, samples)
        return measured

    def derived(self, measured: Sequence[Measurement]) -> list[Measurement]:
        before = {one.name: one for one in self._stored("before")}
        after = {one.name: one for one in measured}
        name = "accuracy" if self.answers is not None else "token_accuracy"
        one = gain(name, before[name], after[name])
        losses = [before["heldout_loss"].value, *self._stored_quick("heldout_loss"), after["heldout_loss"].value]
        trend = falling_trend(losses)
        says = (
            f"{losses[0]:.4g} -> {losses[-1]:.4g} nats per token over {len(losses)} points, Mann-Kendall p {trend:.2g}"
        )
        return [
            Measurement("accuracy_gain", one.value, one.n, one.low, one.high, one.detail),
            Measurement("heldout_loss", trend, len(losses), detail={"says": says}),
        ]


def training_rows(context: StageContext, policy: Any) -> list[Conversation]:
    """The user's conversations, mixed with replay in the recipe's share."""
    rows = [list(row.messages) for row in load_conversations(context.data / "train.jsonl")]
    stage, share = context.stage, context.stage.replay.share
    sources = load_general(context.data, "replay") if share else []
    if sources:
        # So many copies of the stage's own rows that all replay rows find room, but no more than training will see.
        seen = stage.steps * stage.batch_size * stage.accumulation * context.recipe.processes
        room = min(len(sources), REPLAY_SOURCES) * (1 - share) / share
        rows = rows * max(1, min(math.ceil(room / len(rows)), math.ceil(seen * (1 - share) / len(rows))))
    mixed = rows + replay_rows(context, policy, sources, len(rows))
    random.Random(derived_seed(context.recipe.seed, context.index, "mix")).shuffle(mixed)
    return mixed


def replay_rows(context: StageContext, policy: Any, sources: Sequence[Any], own: int) -> list[Conversation]:
    """Replay conversations in number share / (1 - share) of the stage's own, repeated if there are too few."""
    share = context.stage.replay.share
    wanted = round(own * share / (1 - share))
    if not wanted or not sources:
        return []
    rows = own_answers(context, policy, "replay", sources[: min(wanted, REPLAY_SOURCES)])
    if not rows:
        context.alert("warning", "no-replay", "the model ended none of its answers to the general prompts: no replay")
        return []
    repeats = -(-wanted // len(rows))
    return (rows * repeats)[:wanted]
