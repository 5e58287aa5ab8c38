"""CPO, Conservative Policy Optimization: DPO, a penalty on the divergence with an adaptive weight, and a trust region.

Not Contrastive Preference Optimization. The weight follows Ziegler et al. 2019 (section 2.2); the divergence is exact,
per token, on the pairs and on anchors: the start's own answers to general prompts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from engine.backends.controller import Controller
from engine.backends.interface import TrainingLink
from engine.backends.mlx.batches import Row
from engine.backends.mlx.dpo import DPOTrainer, kl_gauges
from engine.backends.mlx.logprobs import token_divergence
from engine.backends.mlx.losses import mean_over
from engine.backends.mlx.network import Weights
from engine.backends.mlx.policy import MLXPolicy
from engine.backends.mlx.preferences import Pair, divergence_places, encoded_pairs
from engine.backends.mlx.sft import counted_arrays, encoded_rows
from engine.backends.mlx.training import Arrays

PENALTY_TOKENS = 2048
"""Most positions of a micro-batch that the penalty is taken on; more would cost much at a large vocabulary."""
CONTROLLER = "controller.json"
ACCEPTED = "accepted.safetensors"
WEIGHT, MOMENT = "weight.", "optimizer."


class CPOTrainer(DPOTrainer):
    """DPO plus penalty, controller and trust region."""

    def __init__(self, policy: MLXPolicy, stage: Any, pairs: Sequence[Pair], anchors: Sequence[Row]) -> None:
        super().__init__(policy, stage, pairs)
        self.anchors = anchors if stage.anchors.share else []
        self.kl_places = PENALTY_TOKENS // 2 if self.anchors else PENALTY_TOKENS
        self.controller = Controller(stage.kl_coefficient, stage.kl_target)
        self.accepted = self._snapshot()
        """Weights and optimizer leaves at the last probe that held."""

    def arrays(self, micro_batches: list[list[int]]) -> list[Arrays]:
        found = super().arrays(micro_batches)
        for turn, (batch, arrays) in enumerate(zip(micro_batches, found, strict=True)):
            arrays["coefficient"] = mx.array(self.controller.coefficient)
            if self.anchors:
                anchors = self._anchor_arrays(len(batch), turn)
                arrays |= {f"anchor_{name}": value for name, value in anchors.items()}
        return found

    def _anchor_arrays(self, pairs: int, turn: int) -> Arrays:
        """This micro-batch's anchors: a fixed walk through them, so that no state is kept."""
        count = max(1, round(pairs * self.stage.anchors.share))
        first = (self.step * self.stage.accumulation + turn) * count
        rows = [self.anchors[(first + place) % len(self.anchors)] for place in range(count)]
        counted = sum(sum(row.counted[1:]) for row in rows)
        return counted_arrays(rows) | divergence_places(counted, self.kl_places)

    def loss(self, arrays: Arrays, reference: Weights) -> tuple[mx.array, Arrays]:
        now = self.trained_weights()
        loss, gauges, policy, start = self.pair_loss(arrays, reference)
        places, counted = arrays["kl_places"], arrays["kl_counted"]
        divergence = token_divergence(self.network, policy[places], start[places])
        gauges |= kl_gauges(mx.stop_gradient(divergence), arrays)
        if "anchor_ids" in arrays:
            at = arrays["anchor_positions"][arrays["anchor_kl_places"]]
            policy = self.hidden(arrays["anchor_ids"])[at]
            start = self.reference_hidden(arrays["anchor_ids"], reference, now)[at]
            on_anchors = token_divergence(self.network, policy, start)
            gauges["kl_anchors"] = mean_over(mx.stop_gradient(on_anchors), arrays["anchor_kl_counted"])
            divergence = mx.concatenate([divergence, on_anchors])
            counted = mx.concatenate([counted, arrays["anchor_kl_counted"]])
        penalty = mean_over(divergence, counted)
        gauges["penalty"] = mx.stop_gradient(penalty)
        gauges["kl_coefficient"] = arrays["coefficient"]
        return (loss + arrays["coefficient"] * penalty) / arrays["parts"], gauges

    # ---- the controller and the trust region ---------------------------------------------------------------------

    def after_update(self, told: list[dict[str, float]]) -> None:
        self.controller.update(sum(one["penalty"] for one in told) / len(told))
        region = self.stage.trust_region
        if self.step % region.every and self.step != self.stage.steps:
            return
        self.network.model.eval()
        probe = self.link.probe(self.step)
        self.network.model.train()
        held = probe.kl <= region.kl and (probe.retention is None or probe.retention >= region.retention)
        if held:
            self.accepted = self._snapshot()
        else:
            self._go_back()
            self.controller.coefficient *= 2
            self.controller.steps_back += 1
            self.slower *= region.slower
        self.link.probed(self.step, probe, held)

    def _snapshot(self) -> Weights:
        """Weights never change in place, so they are not copied; the optimizer's leaves are."""
        return {WEIGHT + name: value for name, value in self.weights.items()} | {
            MOMENT + name: value for name, value in self.optimizer.leaves().items()
        }

    def _go_back(self) -> None:
        parts: dict[str, Weights] = {WEIGHT: {}, MOMENT: {}}
        for name, value in self.accepted.items():
            prefix = WEIGHT if name.startswith(WEIGHT) else MOMENT
            parts[prefix][name.removeprefix(prefix)] = value
        self.optimizer.take(parts[MOMENT])
        self.network.use(parts[WEIGHT])
        # In the model's own order: the gradient's norm is summed in it, and a file's order is another one.
        self.weights = self.network.trained()

    # ---- checkpoints ---------------------------------------------------------------------------------------------

    def save_state(self, folder: Path) -> None:
        (folder / CONTROLLER).write_text(json.dumps(self.controller.state()))
        mx.save_safetensors(str(folder / ACCEPTED), self.accepted)

    def load_state(self, folder: Path) -> None:
        self.controller.restore(json.loads((folder / CONTROLLER).read_text()))
        self.accepted = mx.load(str(folder / ACCEPTED))
        mx.eval(self.accepted)


def train(policy: MLXPolicy, rows: Any, stage: Any, link: TrainingLink) -> None:
    """Train on ``rows.pairs`` (engine.data.formats.Preference) with ``rows.anchors`` (whole conversations) beside."""
    pairs = encoded_pairs(policy, rows.pairs, stage)
    CPOTrainer(policy, stage, pairs, encoded_rows(policy, rows.anchors, stage.max_length)).train(link)
