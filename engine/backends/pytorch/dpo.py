"""DPO (Rafailov et al. 2023) through TRL's DPOTrainer; the reference is a frozen copy of the adapter, not a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trl import DPOConfig, DPOTrainer

from engine.backends.interface import TrainingLink
from engine.backends.pytorch.divergence import captured_hidden_states, predicting_positions, token_divergence
from engine.backends.pytorch.policy import TorchPolicy
from engine.backends.pytorch.preferences import KL_TOKENS, preference_dataset, tell_divergence
from engine.backends.pytorch.training import LinkedTrainer, training_arguments


class LinkedDPOTrainer(LinkedTrainer, DPOTrainer):
    """DPOTrainer with the live KL gauge: both forwards happen anyway, so it reads their hidden states."""

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        with captured_hidden_states(self.policy.model) as hidden:
            if self.ref_model is None:
                result = super()._compute_loss(model, inputs, return_outputs)
            else:
                with captured_hidden_states(self.ref_model) as reference_hidden:
                    result = super()._compute_loss(model, inputs, return_outputs)
                hidden.extend(reference_hidden)
        if self.model.training and len(hidden) >= 2:
            positions = predicting_positions(inputs["completion_mask"], KL_TOKENS)
            if positions.any():
                policy, reference = (states[:, :-1][positions] for states in hidden[:2])
                kls = token_divergence(self.policy.model, policy, reference, self.policy.reference)
                tell_divergence(self._metrics["train"], kls.mean().item(), inputs["completion_mask"])
        return result


def dpo_arguments(stage: Any) -> dict[str, Any]:
    """The fields of DPOConfig that make the DPO objective of a recipe's stage."""
    return {
        "beta": stage.beta,
        "loss_type": ["sigmoid", "sft"] if stage.sft_weight else ["sigmoid"],
        "loss_weights": [1.0, stage.sft_weight] if stage.sft_weight else None,
        "max_length": stage.max_length,
    }


def train(policy: TorchPolicy, rows: Sequence[Any], stage: Any, link: TrainingLink) -> None:
    """Train on preference pairs (engine.data.formats.Preference), from the adapter as the stage found it."""
    trainer = LinkedDPOTrainer(
        model=policy.model,
        # A second model only in full fine-tuning; left out, TRL would reload the base by its name instead.
        ref_model=policy.reference,
        args=DPOConfig(**training_arguments(stage, policy, link.folder()), **dpo_arguments(stage)),
        train_dataset=preference_dataset(rows),
        processing_class=policy.tokenizer,
    )
    trainer.train_linked(link, policy)
