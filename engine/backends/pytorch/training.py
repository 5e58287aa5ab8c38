"""The part of the training loop that is ours: reporting, evaluating, checkpoints and pauses, on top of any HF Trainer."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PrinterCallback

from engine.backends.interface import TrainingLink
from engine.backends.pytorch.device import peak_memory_mib
from engine.backends.pytorch.policy import TorchPolicy

datasets.disable_progress_bars()

RENAMED = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "kl": "kl",
    "kl_sequence": "kl_sequence",
    "rewards/margins": "reward",
    "rewards/accuracies": "preference_accuracy",
    "rewards/chosen": "reward_chosen",
    "rewards/rejected": "reward_rejected",
    "logps/chosen": "logprob_chosen",
    "logps/rejected": "logprob_rejected",
    "mean_token_accuracy": "token_accuracy",
    "entropy": "entropy",
}
"""Trainer metric -> gauge. What is not listed (epochs, counters) is not worth a line in the log."""


class LinkedTrainer:
    """Mixin before a TRL trainer. ``link`` is told every step and decides about evaluations, checkpoints and pauses.

    Checkpoints go through a staging folder that the link seals (manifest, fsync, rename), because the Trainer's own
    are written in place and resume from a damaged one without a word.
    """

    link: TrainingLink
    policy: TorchPolicy
    _staging: Path | None = None
    _last_step = 0
    _last_time = 0.0
    _tokens = 0

    def train_linked(self, link: TrainingLink, policy: TorchPolicy) -> None:
        """Train to the last step, or until a stop is requested; from the newest valid checkpoint if there is one."""
        self.link = link
        self.policy = policy
        self.remove_callback(PrinterCallback)  # type: ignore[attr-defined]  # it prints on the stage's stdout
        resume = link.resume_from()
        self._last_step = resume[1] if resume else 0
        self._last_time = time.perf_counter()
        self.train(resume_from_checkpoint=str(resume[0]) if resume else None)  # type: ignore[attr-defined]

    # ---- every step ----------------------------------------------------------------------------------------------

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        mask = inputs.get("attention_mask")
        self._tokens += int(mask.sum()) if mask is not None else int(inputs["input_ids"].numel())
        return super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        super()._maybe_log_save_evaluate(*args, **kwargs)  # type: ignore[misc]
        state = self.state  # type: ignore[attr-defined]
        if state.global_step <= self._last_step:  # also called at an epoch's end, with nothing new
            return
        self._last_step = state.global_step
        self._report(state)
        self.link.after_step(state.global_step, state.max_steps)
        stop = self._agreed(self.link.stop_requested())
        if stop or self.link.wants_checkpoint(state.global_step, state.max_steps):
            self._save_checkpoint(self.model, None)  # type: ignore[attr-defined]
        if stop:
            self.control.should_training_stop = True  # type: ignore[attr-defined]
        self._last_time = time.perf_counter()  # evaluating and saving are not training time

    def _report(self, state: Any) -> None:
        seconds = time.perf_counter() - self._last_time
        logged = state.log_history[-1] if state.log_history else {}
        state.log_history = state.log_history[-1:]  # kept whole it would grow with every checkpoint
        values = {
            gauge: float(logged[name]) for name, gauge in RENAMED.items() if isinstance(logged.get(name), int | float)
        }
        values["tokens"] = float(self._tokens)
        values["tokens_per_second"] = self._tokens / seconds if seconds > 0 else math.nan
        values["seconds"] = seconds
        values["memory_mib"] = peak_memory_mib()
        self._tokens = 0
        if self.is_world_process_zero():  # type: ignore[attr-defined]
            self.link.step(state.global_step, state.max_steps, values)

    def _agreed(self, value: Any) -> Any:
        """Rank 0's value on every rank: only it hears commands, and all must leave the loop at the same step."""
        if not torch.distributed.is_initialized():
            return value
        shared = [value]
        torch.distributed.broadcast_object_list(shared, src=0)
        return shared[0]

    # ---- checkpoints ---------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging else super()._get_output_dir(trial)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step  # type: ignore[attr-defined]
        first = self.is_world_process_zero()  # type: ignore[attr-defined]
        self._staging = Path(self._agreed(str(self.link.staging(step)) if first else ""))
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
            self.accelerator.wait_for_everyone()  # type: ignore[attr-defined]  # every rank's random state is written
            if first:
                folder = self._staging / f"checkpoint-{step}"
                # A pickle that would hold tokens in clear; the run's recipe says all that it says.
                (folder / "training_args.bin").unlink(missing_ok=True)
                self.link.seal(folder, step)
            self.accelerator.wait_for_everyone()  # type: ignore[attr-defined]
        finally:
            self._staging = None

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Not in checkpoints: the run's report says more."""


def training_arguments(stage: Any, policy: TorchPolicy, folder: Path) -> dict[str, Any]:
    """The keyword arguments that every TRL config of ours shares, from a recipe's stage."""
    on_cpu = policy.device.type == "cpu"
    computes_in_bf16 = (
        policy.device.type == "cuda" and policy.settings.dtype != "fp32" and torch.cuda.is_bf16_supported()
    )
    return {
        "output_dir": str(folder),
        "max_steps": stage.steps,
        "per_device_train_batch_size": stage.batch_size,
        "gradient_accumulation_steps": stage.accumulation,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": stage.schedule,
        "warmup_steps": stage.warmup,  # below 1 it is a share of the steps
        "weight_decay": stage.weight_decay,
        "max_grad_norm": stage.max_grad_norm,
        "optim": OPTIMIZERS[stage.optimizer],
        "gradient_checkpointing": stage.gradient_checkpointing,
        "seed": policy.settings.seed,
        "data_seed": policy.settings.seed,
        "bf16": computes_in_bf16,
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # a NaN loss must be seen, not averaged away
        "save_strategy": "no",  # LinkedTrainer saves
        "eval_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "ddp_backend": "gloo" if on_cpu and int(os.environ.get("WORLD_SIZE", "1")) > 1 else None,
        "ddp_timeout": 86_400,  # rank 0 evaluates while the others wait
    }


OPTIMIZERS = {"adamw": "adamw_torch", "adamw-8bit": "adamw_bnb_8bit", "paged-adamw-8bit": "paged_adamw_8bit"}
