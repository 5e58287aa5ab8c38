"""GRPO (Shao et al. 2024): completions of a prompt compared with one another by a verifier's rewards.

The objective and its settings are those of TRL's GRPOTrainer, which the PyTorch backend runs; generation is batched on
mlx-lm's caches. What is sampled and not yet used up is part of every checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from engine.backends.groups import (
    KL_EVERY,
    KL_ROWS,
    KL_TOKENS,
    SHOWN,
    SHOWN_EVERY,
    Turn,
    advantage_variance,
    component_means,
    group_advantages,
    questions_that_fit,
    silent_groups,
    told_of,
    turns_of_step,
)
from engine.backends.interface import TrainingLink
from engine.backends.mlx.batches import padded_ids, predicted
from engine.backends.mlx.generation import generate
from engine.backends.mlx.logprobs import tempered_logprobs
from engine.backends.mlx.losses import group_loss, mean_over, sampled_kl
from engine.backends.mlx.network import Weights
from engine.backends.mlx.policy import MLXPolicy
from engine.backends.mlx.rollouts import (
    Rollout,
    load_rollouts,
    rollout_arrays,
    save_rollouts,
    token_shares,
    with_logprobs,
)
from engine.backends.mlx.sft import divergence_from_start
from engine.backends.mlx.training import Arrays, Trainer
from engine.backends.tokens import encode_prompt
from engine.verify.interface import Verifier


class GRPOTrainer(Trainer):
    """The loop over generations. The reference, where the objective has one, is read once when a rollout is made."""

    verifier: Any

    def __init__(self, policy: MLXPolicy, stage: Any, questions: Sequence[Any], verifier: Verifier) -> None:
        super().__init__(policy, stage)
        self.verifier = verifier
        self.questions = questions
        self.prompts = [tuple(encode_prompt(policy.tokenizer, list(row.prompt))) for row in questions]
        self.parts = stage.steps_per_generation or stage.accumulation
        self.off_policy = stage.accumulation % (self.parts * stage.num_iterations) != 0
        """Whether rollouts are trained on after the policy moved away from what sampled them."""
        self.generation = -1
        """The number of the one that ``rollouts`` are of."""
        self.rollouts: list[Rollout] = []
        self._told: list[dict[str, float]] = []
        """Of the generations made for this step."""

    # ---- what a step trains on -----------------------------------------------------------------------------------

    def row_lengths(self) -> list[int]:
        return [len(prompt) for prompt in self.prompts]

    def batches(self, step: int) -> list[Arrays]:
        self._told = []
        turns = self._turns(step)
        found: list[Arrays] = []
        for turn in turns:
            if turn.generation != self.generation:
                self.generation, self.rollouts = turn.generation, self._generate(turn)
            part = self.rollouts[turn.part * self.stage.batch_size :][: self.stage.batch_size]
            if not found:
                self._gauge_rows = [rollout.row() for rollout in part[:KL_ROWS]]
            found.append(self._arrays(part, len(turns)))
        return found

    def _turns(self, step: int) -> list[Turn]:
        return turns_of_step(step, len(self.questions), self.stage, self.seed)

    def _arrays(self, part: Sequence[Rollout], window: int) -> Arrays:
        stage = self.stage
        items = sum(len(one.completion) for one in self.rollouts) / self.parts
        return rollout_arrays(part, token_shares(part, stage.loss, window, stage.max_new_tokens, items))

    def arrays(self, micro_batches: list[list[int]]) -> list[Arrays]:
        """From places in the generation at hand."""
        return [self._arrays([self.rollouts[place] for place in micro], len(micro_batches)) for micro in micro_batches]

    def longest(self) -> list[Arrays]:
        """A micro-batch of the longest prompt, all answered up to the limit, after a whole generation of it."""
        prompt = max(self.prompts, key=len)
        count, limit = self.stage.batch_size, self.stage.max_new_tokens
        self._sample([prompt] * (count * self.parts), seed=0, stops=set())
        completion, advantages = (prompt[-1],) * limit, np.linspace(-1.0, 1.0, count)
        zeros = np.zeros(limit, np.float32)
        part = [
            Rollout(
                prompt,
                completion,
                np.full(limit, advantage, np.float32),
                zeros if self.off_policy else None,
                zeros if self.stage.kl_weight else None,
            )
            for advantage in advantages
        ]
        return [rollout_arrays(part, token_shares(part, "dapo", 1, limit, count * limit))]

    # ---- generating and rewarding --------------------------------------------------------------------------------

    def _sample(self, prompts: Sequence[Sequence[int]], seed: int, stops: set[int]) -> list[list[int]]:
        with self.policy.weights("policy") as network:
            return generate(
                network,
                prompts,
                max_new_tokens=self.stage.max_new_tokens,
                temperature=self.stage.temperature,
                seed=seed,
                stops=stops,
            )

    def _generate(self, turn: Turn) -> list[Rollout]:
        """The rollouts of a generation, shuffled so that each of its parts has some of every group."""
        group, tokenizer = self.stage.group_size, self.policy.tokenizer
        rows = [row for row in turn.prompts for _ in range(group)]
        draw = np.random.default_rng([self.seed, turn.generation])
        seed = int(draw.integers(2**31))
        completions = self._sample([self.prompts[row] for row in rows], seed, self.policy.stops)
        texts = [str(text) for text in tokenizer.batch_decode(completions, skip_special_tokens=True)]
        asked = [self.questions[row].prompt[-1]["content"] for row in rows]
        answers = [self.questions[row].answer for row in rows]
        verdicts = self.verifier.verify(asked, texts, answers)
        rewards = [verdict.reward for verdict in verdicts]
        ended = [bool(ids) and ids[-1] in self.policy.stops for ids in completions]
        self._told.append(
            {
                "reward": float(np.mean(rewards)),
                "reward_std": float(np.std(rewards, ddof=1)),
                **dict(component_means(verdicts)),
                "advantage_variance": advantage_variance([verdict.correctness for verdict in verdicts], group),
                "silent_groups": silent_groups(rewards, group),
                "completion_length": float(np.mean([len(ids) for ids in completions])),
                "clipped": 1 - sum(ended) / len(ended),
            }
        )
        if self.step % SHOWN_EVERY == 0:
            for place in range(min(SHOWN, group)):
                self.link.sample(self.step, asked[place], texts[place], told_of(verdicts[place]))
        advantages = self.advantages(rewards, asked, texts, answers, completions)
        rollouts = [
            Rollout(self.prompts[row], tuple(ids), each)
            for row, ids, each in zip(rows, completions, advantages, strict=True)
        ]
        rollouts = [rollouts[place] for place in draw.permutation(len(rollouts))]
        if self.off_policy:
            rollouts = with_logprobs(rollouts, "old", self._logprobs(rollouts, "policy"))
        if self.stage.kl_weight:
            rollouts = with_logprobs(rollouts, "reference", self._logprobs(rollouts, "start"))
        return rollouts

    def advantages(
        self, rewards: list[float], asked: list[str], texts: list[str], answers: list[str], ids: list[list[int]]
    ) -> list[np.ndarray]:
        """For each completion, one for each of its tokens; GRPO's are all alike."""
        each = group_advantages(rewards, self.stage.group_size)
        return [np.full(len(one), advantage, np.float32) for one, advantage in zip(ids, each, strict=True)]

    def _logprobs(self, rollouts: Sequence[Rollout], which: Any) -> np.ndarray:
        """Log-probability of every completion token in turn, a micro-batch at a time."""
        found = []
        with self.policy.weights(which) as network:
            for start in range(0, len(rollouts), self.stage.batch_size):
                rows = [rollout.row() for rollout in rollouts[start : start + self.stage.batch_size]]
                positions, targets, _ = predicted(rows)
                hidden = network.hidden(padded_ids([row.ids for row in rows]))
                states = hidden.reshape(-1, hidden.shape[-1])[mx.array(positions)]
                values = tempered_logprobs(network, states, mx.array(targets), self.stage.temperature)
                found.append(np.array(values[:, 0]))
        return np.concatenate(found)

    # ---- objective and gauges ------------------------------------------------------------------------------------

    def loss(self, arrays: Arrays, reference: Weights) -> tuple[mx.array, Arrays]:
        states = self.hidden(arrays["ids"])[arrays["positions"]]
        found = tempered_logprobs(self.network, states, arrays["targets"], self.stage.temperature)
        logprobs, counted, shares = found[:, 0], arrays["counted"], arrays["shares"]
        old = arrays["old"] if "old" in arrays else mx.stop_gradient(logprobs)
        loss, clipped = group_loss(logprobs, old, arrays["advantages"], shares, self.stage.clip)
        if self.stage.kl_weight:
            loss = loss + self.stage.kl_weight * (sampled_kl(logprobs, old, arrays["reference"]) * shares).sum()
        return loss, {
            "entropy": mean_over(mx.stop_gradient(found[:, 1]), counted),
            "clip_ratio": mean_over(clipped, counted),
        }

    def look(self, batches: list[Arrays]) -> dict[str, float]:
        """What the step's generations had to tell, and every so often the exact divergence from the start."""
        told = self._told
        gauges = {name: sum(one[name] for one in told) / len(told) for name in (told[0] if told else {})}
        if self.step % KL_EVERY == 0 and self.policy.has("start"):
            gauges["kl"] = divergence_from_start(self.policy, self._gauge_rows, KL_TOKENS)
        return gauges

    # ---- checkpoints ---------------------------------------------------------------------------------------------

    def save_state(self, folder: Path) -> None:
        needed = any(turn.generation == self.generation for turn in self._turns(self.step))
        save_rollouts(folder, self.generation, self.rollouts if needed else [])

    def load_state(self, folder: Path) -> None:
        self.generation, self.rollouts = load_rollouts(folder)


def train_group(kind: type[GRPOTrainer], policy: MLXPolicy, rows: Any, stage: Any, link: TrainingLink) -> None:
    """Train on ``rows.questions`` (engine.data.formats.Question) with the rewards of ``rows.verifier``."""
    kind(policy, stage, questions_that_fit(policy.tokenizer, rows.questions, stage), rows.verifier).train(link)


def train(policy: MLXPolicy, rows: Any, stage: Any, link: TrainingLink) -> None:
    train_group(GRPOTrainer, policy, rows, stage, link)
