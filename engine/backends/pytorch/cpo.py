"""CPO, Conservative Policy Optimization: DPO, a penalty on the divergence with an adaptive weight, and a trust region.

Not TRL's CPO, which is Contrastive Preference Optimization. The weight follows Ziegler et al. 2019 (section 2.2); the
divergence is exact, per token, on the pairs and on anchors: the start's own answers to general prompts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from trl import DPOConfig, DPOTrainer

from engine.backends.controller import Controller
from engine.backends.interface import Conversation, Probe, TrainingLink
from engine.backends.pytorch.divergence import (
    captured_hidden_states,
    predicting_positions,
    reference_forward,
    token_divergence,
)
from engine.backends.pytorch.dpo import dpo_arguments
from engine.backends.pytorch.heads import penalty_positions
from engine.backends.pytorch.policy import TorchPolicy
from engine.backends.pytorch.preferences import preference_dataset, tell_divergence
from engine.backends.pytorch.training import LinkedTrainer, training_arguments
from engine.backends.tokens import encode_conversation

CONTROLLER = "controller.json"
ACCEPTED = "accepted.safetensors"


class LinkedCPOTrainer(LinkedTrainer, DPOTrainer):
    """DPOTrainer plus penalty, controller and trust region."""

    stage: Any
    controller: Controller
    anchors: list[tuple[list[int], list[int]]]
    """(ids, trained) of every anchor conversation."""
    _told: list[float]
    """Divergence of each micro-batch since the last step."""
    _accepted: dict[str, torch.Tensor]
    """Weights and moments at the last probe that held."""

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        with captured_hidden_states(self.policy.model, with_graph=True) as hidden:
            if self.ref_model is None:
                loss = super()._compute_loss(model, inputs, False)
            else:
                with captured_hidden_states(self.ref_model) as reference_hidden:
                    loss = super()._compute_loss(model, inputs, False)
                hidden.extend(reference_hidden)
        sides = [(hidden[0], hidden[1], inputs["completion_mask"])]
        anchors = self._anchor_batch(inputs["input_ids"].shape[0] // 2)
        if anchors is not None:
            sides.append(self._anchor_states(model, *anchors))
        budget = penalty_positions(self.policy.model, inputs["input_ids"].numel()) // len(sides)
        divergences = []
        for policy, reference, mask in sides:
            positions = predicting_positions(mask, budget)
            divergences.append(
                token_divergence(
                    self.policy.model,
                    policy[:, :-1][positions],
                    reference[:, :-1][positions].detach(),
                    self.policy.reference,
                )
            )
        penalty = torch.cat(divergences).mean()
        self._told.append(penalty.item())
        told = self._metrics["train"]
        tell_divergence(told, divergences[0].detach().mean().item(), inputs["completion_mask"])
        if anchors is not None:
            told["gauge/kl_anchors"].append(divergences[1].detach().mean().item())
        told["gauge/kl_coefficient"].append(self.controller.coefficient)
        loss = loss + self.controller.coefficient * penalty
        return (loss, None) if return_outputs else loss

    # ---- anchors -------------------------------------------------------------------------------------------------

    def _anchor_batch(self, pairs: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
        """(ids, attention mask, trained mask) of this micro-batch's anchors: a fixed walk, so that no state is kept."""
        share = self.stage.anchors.share
        if not share or not self.anchors:
            return None
        count = max(1, round(pairs * share))
        turn = self.state.global_step * self.args.gradient_accumulation_steps + len(self._told)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        first = (turn * world + rank) * count
        rows = [self.anchors[(first + place) % len(self.anchors)] for place in range(count)]
        longest = max(len(ids) for ids, _ in rows)
        pad = self.policy.tokenizer.pad_token_id

        def padded(items: list[list[int]], fill: int) -> torch.Tensor:
            return torch.tensor([item + [fill] * (longest - len(item)) for item in items], device=self.policy.device)

        ids = padded([ids for ids, _ in rows], pad)
        attention = padded([[1] * len(ids) for ids, _ in rows], 0)
        return ids, attention, padded([trained for _, trained in rows], 0)

    def _anchor_states(
        self, model: Any, ids: torch.Tensor, attention: torch.Tensor, trained: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        with captured_hidden_states(self.policy.model, with_graph=True) as hidden:
            model(input_ids=ids, attention_mask=attention, use_cache=False, logits_to_keep=1)
        return hidden[0], reference_forward(self.policy, ids, attention, bool(self.args.bf16)), trained

    # ---- the controller and the trust region ---------------------------------------------------------------------

    def after_optimizer_step(self) -> None:
        divergence = torch.tensor(self._told, device=self.policy.device).mean()
        self._told = []
        self.controller.update(float(self.accelerator.gather(divergence).mean()))
        step, last = self.state.global_step, self.state.max_steps
        if step % self.stage.trust_region.every == 0 or step == last:
            self._probe(step)

    def _probe(self, step: int) -> None:
        region = self.stage.trust_region
        probe: Probe = self._agreed(self.link.probe(step) if self.is_world_process_zero() else None)
        held = probe.kl <= region.kl and (probe.retention is None or probe.retention >= region.retention)
        if held:
            self._accepted = self._snapshot()
        else:
            self._restore(self._accepted)
            self.controller.coefficient *= 2
            self.controller.steps_back += 1
            scheduler = self.lr_scheduler
            scheduler.base_lrs = [rate * region.slower for rate in scheduler.base_lrs]
            for group in self.optimizer.param_groups:
                group["initial_lr"] *= region.slower
                group["lr"] *= region.slower
        if self.is_world_process_zero():
            self.link.probed(step, probe, held)

    def _snapshot(self) -> dict[str, torch.Tensor]:
        """Copies, on the CPU, of what trains and of the optimizer's moments."""
        found = {f"weight.{name}": value for name, value in self._trained().items()}
        for index, state in self._optimizer_states():
            found |= {f"moment.{index}.{key}": value for key, value in state.items() if torch.is_tensor(value)}
        return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in found.items()}

    @torch.no_grad()
    def _restore(self, snapshot: dict[str, torch.Tensor]) -> None:
        for name, value in self._trained().items():
            value.copy_(snapshot[f"weight.{name}"])
        moments = {name for name in snapshot if name.startswith("moment.")}
        if not moments:  # back to before the first step
            self._plain_optimizer().state.clear()
        for index, state in self._optimizer_states():
            for key, value in state.items():
                if torch.is_tensor(value):
                    value.copy_(snapshot[f"moment.{index}.{key}"])

    def _trained(self) -> dict[str, torch.Tensor]:
        model = self.accelerator.unwrap_model(self.model)
        return {name: value for name, value in model.named_parameters() if value.requires_grad}

    def _plain_optimizer(self) -> Any:
        return getattr(self.optimizer, "optimizer", self.optimizer)  # below accelerate's wrapper

    def _optimizer_states(self) -> list[tuple[int, dict[str, Any]]]:
        optimizer = self._plain_optimizer()
        order = [value for group in optimizer.param_groups for value in group["params"]]
        return [(index, optimizer.state[value]) for index, value in enumerate(order) if value in optimizer.state]

    # ---- checkpoints ---------------------------------------------------------------------------------------------

    def prepare(self, stage: Any, anchors: list[tuple[list[int], list[int]]]) -> None:
        self.stage, self.anchors = stage, anchors
        self.controller = Controller(stage.kl_coefficient, stage.kl_target)
        self._told = []
        self._accepted = {f"weight.{name}": value.detach().cpu().clone() for name, value in self._trained().items()}

    def save_state(self, folder: Path) -> None:
        (folder / CONTROLLER).write_text(json.dumps(self.controller.state()))
        save_file(self._accepted, folder / ACCEPTED)

    def load_state(self, folder: Path) -> None:
        self.controller.restore(json.loads((folder / CONTROLLER).read_text()))
        self._accepted = load_file(folder / ACCEPTED)


def train(policy: TorchPolicy, rows: Any, stage: Any, link: TrainingLink) -> None:
    """Train on ``rows.pairs`` (engine.data.formats.Preference) with ``rows.anchors`` (whole conversations) beside."""
    trainer = LinkedCPOTrainer(
        model=policy.model,
        ref_model=policy.reference,
        args=DPOConfig(**training_arguments(stage, policy, link.folder()), **dpo_arguments(stage)),
        train_dataset=preference_dataset(rows.pairs),
        processing_class=policy.tokenizer,
    )
    trainer.prepare(stage, encoded_anchors(policy, rows.anchors, stage.max_length))
    trainer.train_linked(link, policy)


def encoded_anchors(
    policy: TorchPolicy, conversations: Sequence[Conversation], max_length: int
) -> list[tuple[list[int], list[int]]]:
    """Token ids and trained masks of the conversations that have an assistant token within the length."""
    encoded = [encode_conversation(policy.tokenizer, conversation, max_length) for conversation in conversations]
    return [(row.ids, row.trained) for row in encoded if any(row.trained)]
