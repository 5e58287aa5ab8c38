"""The training loop: fixed data order, a compiled step, gauges, and checkpoints that a resume continues to the bit."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx

from engine.backends.data_order import steps_from
from engine.backends.interface import TrainingLink
from engine.backends.mlx.device import check_memory, peak_memory_mib
from engine.backends.mlx.network import Weights
from engine.backends.mlx.optimizer import AdamW, learning_rate
from engine.backends.mlx.policy import MLXPolicy
from engine.backends.mlx.ranks import join

STATE = "training.json"
RANK_STRIDE = 1_000_003
"""Between the random seeds of two ranks: more than a stage has steps."""
Arrays = dict[str, mx.array]


class Trainer(ABC):
    """One method's training. A subclass says what a micro-batch is and what its loss is; the loop is here.

    Everything a step depends on is the weights, the optimizer's leaves, the step's number (data order, learning rate
    and dropout are worked out from it) and what a method adds; all of it is in every checkpoint.
    """

    uses_reference = False
    """Whether ``loss`` needs the stage's start beside the policy."""

    def __init__(self, policy: MLXPolicy, stage: Any) -> None:
        self.policy = policy
        self.network = policy.network
        self.stage = stage
        self.ranks = join()
        self.seed = policy.settings.seed
        self.weights: Weights = self.network.trained()
        self.optimizer = AdamW(self.weights, stage.weight_decay, stage.max_grad_norm)
        self.step = 0
        """Optimizer steps that are done."""
        self.slower = 1.0
        """Factor on the learning rate; a trust region lowers it."""
        self._reference: Weights = {}
        self._order: Iterator[list[list[int]]] | None = None
        self._compiled_gradients = mx.compile(self._gradients, inputs=mx.random.state, outputs=mx.random.state)
        optimizer_state = [self.optimizer.state]
        self._compiled_update = mx.compile(self.optimizer.apply, inputs=optimizer_state, outputs=optimizer_state)

    # ---- what a method says --------------------------------------------------------------------------------------

    @abstractmethod
    def row_lengths(self) -> list[int]:
        """Tokens of every training row."""

    @abstractmethod
    def arrays(self, micro_batches: list[list[int]]) -> list[Arrays]:
        """The micro-batches of one step, each as arrays of padded shapes, from their row indices."""

    @abstractmethod
    def loss(self, arrays: Arrays, reference: Weights) -> tuple[mx.array, Arrays]:
        """``(loss, gauges)`` of a micro-batch: its part of the step's loss, and what it has to tell."""

    def batches(self, step: int) -> list[Arrays]:
        """What the step after ``step`` trains on, all ranks together: ``accumulation`` micro-batches of each."""
        if self._order is None:
            rows, parts = len(self.row_lengths()), self.stage.accumulation * self.ranks.size
            self._order = steps_from(step, rows, self.stage.batch_size, parts, self.seed)
        return self.arrays(next(self._order))

    def longest(self) -> list[Arrays]:
        """The micro-batch of the longest rows: what training can meet at worst."""
        lengths = self.row_lengths()
        return self.arrays([sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))[: self.stage.batch_size]])

    def tokens_in(self, batches: list[Arrays]) -> int:
        """Tokens of a step, without padding."""
        return int(sum(arrays["tokens"].item() for arrays in batches))

    def look(self, batches: list[Arrays]) -> dict[str, float]:
        """Gauges that cost something extra, before the weights of this step are updated."""
        return {}

    def after_update(self, told: list[dict[str, float]]) -> None:  # noqa: B027 - a method may have none
        """For methods with a controller; runs before the step's evaluation and checkpoint."""

    def save_state(self, folder: Path) -> None:  # noqa: B027 - a method may have none
        """Write into a checkpoint what the next step depends on beyond weights, optimizer and step."""

    def load_state(self, folder: Path) -> None:  # noqa: B027 - a method may have none
        """Take that state back."""

    # ---- the loop ------------------------------------------------------------------------------------------------

    def train(self, link: TrainingLink) -> None:
        """Train to the last step, or until a stop is requested; from the newest valid checkpoint if there is one."""
        self.link = link
        resume = self.ranks.agreed([str(part) for part in link.resume_from() or ()] if self.ranks.first else None)
        if resume:
            self._restore(Path(resume[0]), int(resume[1]))
        self.ranks.check_same(self.weights, self.step)
        self.network.model.train()
        try:
            self._probe_memory()
            while self.step < self.stage.steps:
                self._one_step()
                if self._after_step():
                    return
        finally:
            self.network.use(self.weights)
            self.network.model.eval()

    def _one_step(self) -> None:
        began = time.perf_counter()
        batches = self.batches(self.step)
        mx.random.seed((self.seed + self.step + self.ranks.rank * RANK_STRIDE) % 2**32)  # other rows, other dropout
        extra = self.look(batches) if self.ranks.first else {}
        rate = self.slower * learning_rate(self.stage, self.step)
        self.optimizer.set_rate(rate)
        gradients, told = self.gradients(self.ranks.share(batches))
        gradients, loss = self.ranks.averaged(gradients, sum(one["loss"] for one in told))
        norm = self.update(gradients)
        self.step += 1
        check_memory()
        gauges = (told or [{}])[0].keys() - {"loss"}  # of this rank's own micro-batches
        means = {name: sum(one[name] for one in told) / len(told) for name in gauges}
        seconds = time.perf_counter() - began
        tokens = float(self.tokens_in(batches))
        values = {
            "loss": loss,
            **means,
            **extra,
            "grad_norm": norm,
            "learning_rate": rate,
            "tokens": tokens,
            "tokens_per_second": tokens / seconds if seconds > 0 else math.nan,
            "seconds": seconds,
            "memory_mib": peak_memory_mib(),
        }
        if self.ranks.first:
            self.link.step(self.step, self.stage.steps, values)
        self.after_update(told)

    def gradients(self, batches: list[Arrays]) -> tuple[Weights, list[dict[str, float]]]:
        """``(gradients, gauges of each micro-batch)``, added up one micro-batch after the other; of none, zeros."""
        reference = self.reference()
        total: Weights | None = None
        told = []
        for arrays in batches:
            gauges, found = self._compiled_gradients(self.weights, reference, arrays)
            total = found if total is None else {name: total[name] + value for name, value in found.items()}
            mx.eval(total, gauges)  # so that one micro-batch's activations are gone before the next
            told.append({name: float(value.item()) for name, value in gauges.items()})
        self.network.use(self.weights)  # tracing left its placeholders in the model
        if total is None:  # fewer micro-batches than ranks at an epoch's end
            total = {name: mx.zeros_like(value) for name, value in self.weights.items()}
        return total, told

    def _gradients(self, weights: Weights, reference: Weights, arrays: Arrays) -> tuple[Arrays, Weights]:
        def objective(weights: Weights) -> tuple[mx.array, Arrays]:
            self.network.use(weights)
            loss, gauges = self.loss(arrays, reference)
            return loss, {"loss": loss, **gauges}

        (_, gauges), gradients = mx.value_and_grad(objective)(weights)
        return gauges, gradients

    def update(self, gradients: Weights) -> float:
        """One optimizer step; returns the gradient's norm before clipping."""
        self.weights, norm = self._compiled_update(self.weights, gradients)
        mx.eval(self.weights, self.optimizer.state, norm)
        self.network.use(self.weights)
        return float(norm.item())

    def reference(self) -> Weights:
        """The start's weights; copies, because a compiled function cannot be given the same array twice."""
        if self.uses_reference and not self._reference:
            self._reference = {name: mx.array(value) for name, value in self.policy.weights_of("start").items()}
        return self._reference

    def hidden(self, ids: mx.array) -> mx.array:
        """Hidden states (B * T, H) of the policy, with the layers recomputed in the backward pass if the stage says."""
        if self.stage.gradient_checkpointing:
            with self.network.checkpointed():
                hidden = self.network.hidden(ids)
        else:
            hidden = self.network.hidden(ids)
        return hidden.reshape(-1, hidden.shape[-1])

    def reference_hidden(self, ids: mx.array, reference: Weights, then: Weights) -> mx.array:
        """The same of the stage's start, without gradient or dropout; afterwards ``then`` is in the model again."""
        model = self.network.model
        training = model.training
        model.eval()
        self.network.use(reference)
        hidden = mx.stop_gradient(self.network.hidden(ids))
        self.network.use(then)
        model.train(training)
        return hidden.reshape(-1, hidden.shape[-1])

    def _after_step(self) -> bool:
        """Evaluations, checkpoint; True to leave the loop."""
        self.network.model.eval()
        self.link.after_step(self.step, self.stage.steps)
        self.network.model.train()
        stop = self.link.stop_requested()
        save = stop or self.link.wants_checkpoint(self.step, self.stage.steps)
        stop, save = self.ranks.agreed([stop, save])  # only the first hears commands; the others wait here for it
        if save:
            digests = self.ranks.check_same(self.weights, self.step)
            if self.ranks.first:
                self._save(digests)
        return bool(stop)

    def _probe_memory(self) -> None:
        """One forward and backward on the longest micro-batch there is, before the first step: what runs out of memory
        does so now. Nothing of it stays."""
        told = getattr(self.link, "measured_longest", None)
        if told is None or not self.row_lengths():
            return
        mx.reset_peak_memory()
        began = time.perf_counter()
        batches = self.longest()
        self.gradients(batches)
        check_memory()
        ids = batches[0]["ids"]
        if self.ranks.first:
            told(*ids.shape, peak_memory_mib(), time.perf_counter() - began)

    # ---- checkpoints ---------------------------------------------------------------------------------------------

    def _save(self, digests: list[str]) -> None:
        folder = self.link.staging(self.step) / f"checkpoint-{self.step}"
        folder.mkdir()
        self.policy.save_trained(folder)
        self.optimizer.save(folder)
        state = {"step": self.step, "slower": self.slower} | ({"ranks": digests} if digests else {})
        (folder / STATE).write_text(json.dumps(state))
        self.save_state(folder)
        self.link.seal(folder, self.step)

    def _restore(self, folder: Path, step: int) -> None:
        self.policy.load_trained(folder)
        self.weights = self.network.trained()
        mx.eval(self.weights)
        self.optimizer.load(folder)
        self.slower = json.loads((folder / STATE).read_text())["slower"]
        self.step = step
        self.load_state(folder)
