"""SFT with LoRA (or full) through TRL's SFTTrainer: cross-entropy on every assistant turn, nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from engine.backends.interface import Conversation, TrainingLink
from engine.backends.pytorch.divergence import (
    captured_hidden_states,
    predicting_positions,
    reference_states,
    token_divergence,
)
from engine.backends.pytorch.end_to_end import first_rows, rows_apart, why_not
from engine.backends.pytorch.policy import TorchPolicy
from engine.backends.pytorch.speedups import padding
from engine.backends.pytorch.training import LinkedTrainer, training_arguments
from engine.backends.tokens import encode_conversation
from recipes.errors import InputError, Problem

KL_EVERY = 10
"""Steps between two readings of the KL gauge: SFT has no reference forward of its own, so each reading costs one."""
KL_ROWS = 4
KL_TOKENS = 256


class LinkedSFTTrainer(LinkedTrainer, SFTTrainer):
    """SFTTrainer with the live KL gauge: every few steps a reference forward on a few rows of the batch."""

    head_outputs = ("log_probs", "entropy", "is_top1")

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        with self._apart(inputs):
            return super().training_step(model, inputs, *args, **kwargs)

    def _probe_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        with self._apart(inputs):
            super()._probe_step(model, inputs, *args, **kwargs)

    def _apart(self, inputs: dict[str, Any]) -> Any:
        """Rows that lie end to end attend to themselves alone, in the forward and in the backward."""
        if not self.padding_free:
            return contextlib.nullcontext()
        return rows_apart(self.policy.model, inputs["cu_seq_lens_q"].tolist())

    def shape_of(self, inputs: dict[str, Any]) -> tuple[int, int]:
        if not self.padding_free:
            return super().shape_of(inputs)
        return len(inputs["cu_seq_lens_q"]) - 1, inputs["max_length_q"]

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        due = self.state.global_step % KL_EVERY == 0 and self.policy.has("start") and model.training
        if not due:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        apart: Any = contextlib.nullcontext()
        if self.padding_free:
            few, bounds = first_rows(inputs, KL_ROWS)
            apart = rows_apart(self.policy.model, bounds)
        else:
            few = {name: inputs[name][:KL_ROWS].clone() for name in ("input_ids", "attention_mask")}
        rows, length = few["input_ids"].shape
        labels = inputs["labels"][:rows, :length].clone()
        with captured_hidden_states(model) as hidden:
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        positions = predicting_positions(labels != -100, KL_TOKENS)
        if hidden and positions.any():
            with apart:
                reference = reference_states(self.policy, few, bool(self.args.bf16))
            policy, reference = (states[:rows, : length - 1][positions] for states in (hidden[0], reference))
            kl = token_divergence(self.policy.model, policy, reference, self.policy.reference).mean().item()
            self._metrics["train"]["kl"].append(kl)
        return result


def train(policy: TorchPolicy, rows: Sequence[Conversation], stage: Any, link: TrainingLink) -> None:
    """Train on whole conversations. Raises InputError if no row has a token to train on."""
    encoded = [encode_conversation(policy.tokenizer, row, stage.max_length) for row in rows]
    kept = [row for row in encoded if any(row.trained)]
    if not kept:
        raise InputError(
            [
                Problem(
                    str(stage.data.source),
                    None,
                    "max_length",
                    f"{len(rows)} rows, none with an assistant token within the first {stage.max_length} tokens",
                    "rows whose assistant turns fit; raise max_length or shorten the prompts",
                    None,
                )
            ]
        )
    dataset = Dataset.from_list(
        [
            {
                "input_ids": row.ids,
                "labels": [token if trained else -100 for token, trained in zip(row.ids, row.trained, strict=True)],
            }
            for row in kept
        ]
    )
    policy.freeze_start()
    free = getattr(stage, "padding_free", False)
    arguments = training_arguments(stage, policy, link.folder())
    if free and (why := why_not(policy, [row.ids for row in kept], arguments["bf16"])):
        found = f"`true`, but {why}"
        raise InputError([Problem("recipe", None, "padding_free", found, "`false`: rows are padded to one length")])
    print(padding([len(row.ids) for row in kept], stage.batch_size, free), flush=True)  # into the stage's log
    trainer = LinkedSFTTrainer(
        model=policy.model,
        args=SFTConfig(
            **arguments,
            padding_free=free,
            max_length=None,  # truncated above, with the mask
            dataset_kwargs={"skip_prepare_dataset": True},
        ),
        train_dataset=dataset,
        processing_class=policy.tokenizer,
    )
    trainer.train_linked(link, policy)
