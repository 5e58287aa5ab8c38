"""ORPO (Hong et al. 2024) on TRL's stable preference trainer: its data, its fused head, and no reference in the loss.

TRL's own ORPO is experimental and materialises the logits of every pair; here the head is fused as in DPO, so that the
peak stays below DPO's, which needs the reference's forward beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from trl import DPOConfig, DPOTrainer

from engine.backends.interface import TrainingLink
from engine.backends.pytorch.divergence import (
    captured_hidden_states,
    predicting_positions,
    token_divergence,
)
from engine.backends.pytorch.policy import TorchPolicy
from engine.backends.pytorch.preferences import KL_TOKENS, preference_dataset, tell_divergence
from engine.backends.pytorch.training import LinkedTrainer, training_arguments
from engine.evaluate.preference import GAP_BETA

GAUGE_EVERY = 10
"""Steps between two readings of KL and margin: both need the reference, which the loss does not."""
GAUGE_PAIRS = 4


class LinkedORPOTrainer(LinkedTrainer, DPOTrainer):
    """The odds-ratio objective; every few steps a reference forward on a few pairs for the gauges."""

    head_outputs = ("log_probs",)
    odds_weight = 0.1

    def _compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool) -> Any:
        due = self.model.training and self.state.global_step % GAUGE_EVERY == 0 and self.policy.has("start")
        ids, attention, completion = (inputs[name] for name in ("input_ids", "attention_mask", "completion_mask"))
        with captured_hidden_states(self.policy.model) as hidden:
            outputs = model(
                input_ids=ids, attention_mask=attention, use_cache=False, fused_lm_head=True,
                labels=ids.masked_fill(completion == 0, -100),
            )  # fmt: skip
        logprobs = outputs.log_probs[:, -(ids.shape[1] - 1) :].sum(1)  # 0 where nothing is predicted
        lengths = completion[:, 1:].sum(1)
        loss, log_odds = orpo_loss(logprobs, lengths, self.odds_weight)
        told = self._metrics["train"]
        told["gauge/log_odds"].append(log_odds.mean().item())
        told["rewards/accuracies"].append((log_odds > 0).float().mean().item())
        for name, value in zip(("chosen", "rejected"), logprobs.detach().chunk(2), strict=True):
            told[f"logps/{name}"].append(value.mean().item())
        if due:
            self._tell_gauges(hidden[0], logprobs.detach(), ids, attention, completion)
        return (loss, outputs) if return_outputs else loss

    @torch.no_grad()
    def _tell_gauges(
        self,
        hidden: torch.Tensor,
        logprobs: torch.Tensor,
        ids: torch.Tensor,
        attention: torch.Tensor,
        completion: torch.Tensor,
    ) -> None:
        """KL and the margin as the preference gap defines it, on the first pairs of the batch."""
        pairs = ids.shape[0] // 2
        rows = [*range(min(GAUGE_PAIRS, pairs)), *range(pairs, pairs + min(GAUGE_PAIRS, pairs))]
        with self.policy.weights("start") as start, captured_hidden_states(start) as captured:
            some = completion[rows]
            start_logprobs = start(
                input_ids=ids[rows], attention_mask=attention[rows], use_cache=False, fused_lm_head=True,
                labels=ids[rows].masked_fill(some == 0, -100),
            ).log_probs[:, -(ids.shape[1] - 1) :].sum(1)  # fmt: skip
        chosen, rejected = (logprobs[rows] - start_logprobs).chunk(2)
        self._metrics["train"]["rewards/margins"].append(GAP_BETA * (chosen - rejected).mean().item())
        positions = predicting_positions(some, KL_TOKENS)
        if positions.any():
            policy, reference = (states[:, :-1][positions] for states in (hidden[rows], captured[0]))
            kl = token_divergence(self.policy.model, policy, reference, self.policy.reference).mean().item()
            tell_divergence(self._metrics["train"], kl, some)


def orpo_loss(logprobs: torch.Tensor, lengths: torch.Tensor, weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """``(loss, log odds ratio (B,))`` from summed log-probabilities (2B,), chosen first, and token counts (2B,).

    Negative log-likelihood of the chosen per token, plus ``weight`` times -log sigmoid of the log odds ratio of the
    length-averaged likelihoods (Hong et al. 2024, eqs. 3 to 7).
    """
    average = (logprobs / lengths.clamp(min=1)).float()
    chosen, rejected = average.chunk(2)
    log_odds = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))
    likelihood = -logprobs.chunk(2)[0].sum() / lengths.chunk(2)[0].sum()
    return likelihood - weight * F.logsigmoid(log_odds).mean(), log_odds.detach()


def _log1mexp(value: torch.Tensor) -> torch.Tensor:
    """log(1 - exp(value)) for value < 0, stable at both ends (Mächler 2012)."""
    value = value.clamp(max=-1e-7)
    near = value > -0.6931471805599453
    # both branches are differentiated, so each sees only values where its gradient is finite
    expm1 = torch.log(-torch.expm1(torch.where(near, value, torch.full_like(value, -0.5))))
    log1p = torch.log1p(-torch.exp(torch.where(near, torch.full_like(value, -1.0), value)))
    return torch.where(near, expm1, log1p)


def train(policy: TorchPolicy, rows: Sequence[Any], stage: Any, link: TrainingLink) -> None:
    """Train on preference pairs; the start is kept only for the gauges and the gates."""
    trainer = LinkedORPOTrainer(
        model=policy.model,
        ref_model=policy.reference,  # full fine-tuning: for the gauges; left out, TRL would load one by its name
        args=DPOConfig(**training_arguments(stage, policy, link.folder()), max_length=stage.max_length),
        train_dataset=preference_dataset(rows),
        processing_class=policy.tokenizer,
    )
    trainer.odds_weight = stage.odds_weight
    trainer.train_linked(link, policy)
