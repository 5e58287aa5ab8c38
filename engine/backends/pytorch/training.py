"""The part of the training loop that is ours: reporting, evaluating, checkpoints and pauses, on top of any HF Trainer."""

from __future__ import annotations

import copy
import math
import os
import time
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PrinterCallback

from engine.backends.interface import TrainingLink
from engine.backends.pytorch.device import in_fixed_order, peak_memory_mib
from engine.backends.pytorch.heads import add_small_head
from engine.backends.pytorch.policy import TorchPolicy
from recipes.errors import InputError, Problem

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
    "reward": "reward",
    "reward_std": "reward_std",
    "completions/mean_length": "completion_length",
    "completions/clipped_ratio": "clipped",
}
"""Trainer metric -> gauge. What is not listed (epochs, counters) is not worth a line in the log."""
OWN = "gauge/"
"""Metrics that our trainers add, by the name of their gauge."""

COUNTERS = ("_total_train_tokens", "_tokens", "_told")
"""What a trainer counts or collects at every step beside its metrics."""


def longest_rows(dataset: Any, count: int) -> list[dict[str, Any]]:
    """The rows with the most tokens, by the columns that hold lists."""
    if dataset is None or not hasattr(dataset, "column_names"):
        return []
    lengths = [0] * len(dataset)
    for name in dataset.column_names:
        for index, value in enumerate(dataset[name]):
            lengths[index] += len(value) if isinstance(value, list) else 0
    longest = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))[:count]
    return [dataset[index] for index in longest] if any(lengths) else []


def has_no_order(error: RuntimeError) -> bool:
    """Whether an operation has no form on the device that sums in a fixed order (torch.use_deterministic_algorithms)."""
    return "deterministic" in str(error)


def refuse_other_ranks(checkpoint: Path, now: int) -> None:
    """Raises InputError for a checkpoint of another number of processes: a rank that finds no file of its own would go on
    with other random numbers, and all with other rows, without a word."""
    saved = len(list(checkpoint.glob("rng_state*.pth")))  # transformers writes one for each rank
    if saved != now:
        accepted = f"`processes: {saved}`, as when the stage began: each of them has its own part of a checkpoint"
        raise InputError([Problem(str(checkpoint), None, "processes", f"`{now}`", accepted)])


def first_sentence(error: Exception) -> str:
    return str(error).split(". ")[0].split(", but ")[0]


class LinkedTrainer:
    """Mixin before a TRL trainer. ``link`` is told every step and decides about evaluations, checkpoints and pauses.

    Checkpoints go through a staging folder that the link seals (manifest, fsync, rename), because the Trainer's own
    are written in place and resume from a damaged one without a word.
    """

    link: TrainingLink
    policy: TorchPolicy
    head_outputs: tuple[str, ...] = ("log_probs", "entropy", "mean_logits", "is_top1")
    """What TRL's trainer asks its fused head for (``trl.trainer.utils.add_fused_lm_head``); these are the DPO trainer's."""
    _staging: Path | None = None
    _last_step = 0
    _last_time = 0.0
    _tokens = 0
    _probed = False
    _fixed_order = True
    """Whether each step sums in a fixed order: as the recipe wants it, and not where the model has an operation that cannot."""

    def train_linked(self, link: TrainingLink, policy: TorchPolicy) -> None:
        """Train to the last step, or until a stop is requested; from the newest valid checkpoint if there is one."""
        self.link = link
        self.policy = policy
        self._fixed_order = policy.settings.fixed_order
        policy.drop_needless_reference()
        temperature = getattr(self, "temperature", 1.0)
        add_small_head(policy.model, self.head_outputs, temperature)
        if policy.reference is not None:
            add_small_head(policy.reference, ("log_probs",), temperature)
        self.remove_callback(PrinterCallback)  # type: ignore[attr-defined]  # it prints on the stage's stdout
        resume = link.resume_from()
        if resume:
            refuse_other_ranks(resume[0], self.accelerator.num_processes)  # type: ignore[attr-defined]
        self._last_step = resume[1] if resume else 0
        self._last_time = time.perf_counter()
        self.train(resume_from_checkpoint=str(resume[0]) if resume else None)  # type: ignore[attr-defined]

    # ---- every step ----------------------------------------------------------------------------------------------

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        if not self._probed:
            self._probed = True
            self._probe_memory(model, *args, **kwargs)
        self._tokens += self.tokens_in(inputs)
        try:
            with in_fixed_order(self._fixed_order):
                return super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]
        except RuntimeError as error:
            if not self._fixed_order or not has_no_order(error):
                raise
            # Found by the probe where there is one; several ranks have none.
            raise RuntimeError(f"{first_sentence(error)}; `fixed_order: false` in the recipe trains without") from error

    def _prepare_inputs(self, inputs: Any) -> Any:
        # Here groups are sampled: nothing is summed by atomic additions, and some of it is refused.
        with in_fixed_order(False):
            return super()._prepare_inputs(inputs)  # type: ignore[misc]

    def tokens_in(self, inputs: Any) -> int:
        """Tokens, without padding, of a micro-batch."""
        mask = inputs.get("attention_mask")
        return int(mask.sum()) if mask is not None else int(inputs["input_ids"].numel())

    def shape_of(self, inputs: dict[str, Any]) -> tuple[int, int]:
        """Sequences of a micro-batch, and the length of the longest in tokens."""
        parts = [inputs[name] for name in ("input_ids", "prompt_ids", "completion_ids") if name in inputs]
        return parts[0].shape[0], sum(part.shape[1] for part in parts)

    def _probe_memory(self, model: Any, *args: Any, **kwargs: Any) -> None:
        """One forward and backward on the longest micro-batch there is, before the first step: what runs out of memory
        does so now. Nothing of it stays: no gradient, no metric, no random number drawn.

        Several ranks would have to agree on one; they are left out.
        """
        told = getattr(self.link, "measured_longest", None)
        if told is None or torch.distributed.is_initialized():
            return
        inputs = self._longest_batch()
        if inputs is None:
            return
        rows, length = self.shape_of(inputs)
        metrics = copy.deepcopy(getattr(self, "_metrics", None))
        seen = copy.deepcopy({name: getattr(self, name) for name in COUNTERS if hasattr(self, name)})
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if cuda else []):
            try:
                with in_fixed_order(self._fixed_order):
                    self._probe_step(model, inputs, *args, **kwargs)
            except RuntimeError as error:
                if not has_no_order(error):
                    raise
                self._fixed_order = False
                model.zero_grad(set_to_none=True)
                told_so = f"a resume may end in other bits than an undisturbed run: {first_sentence(error)}"
                print(told_so, flush=True)
                self._probe_step(model, inputs, *args, **kwargs)
            if cuda:
                torch.cuda.synchronize()
        seconds = time.perf_counter() - began
        model.zero_grad(set_to_none=True)
        if metrics is not None:
            self._metrics = metrics
        for name, value in seen.items():
            setattr(self, name, value)
        told(int(rows), int(length), peak_memory_mib(), seconds)
        self._last_time = time.perf_counter()

    def _longest_batch(self) -> dict[str, Any] | None:
        """The longest micro-batch there is, ready for the model; None where nothing is known of it beforehand."""
        rows = longest_rows(self.train_dataset, self.args.per_device_train_batch_size)  # type: ignore[attr-defined]
        inputs = self._prepare_inputs(self.data_collator(rows)) if rows else {}  # type: ignore[attr-defined]
        return inputs if "input_ids" in inputs else None

    def _probe_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        super().training_step(model, inputs, *args, **kwargs)  # type: ignore[misc]

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        super()._maybe_log_save_evaluate(*args, **kwargs)  # type: ignore[misc]
        state = self.state  # type: ignore[attr-defined]
        if state.global_step <= self._last_step:  # also called at an epoch's end, with nothing new
            return
        self._last_step = state.global_step
        self._report(state)
        self.after_optimizer_step()
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
        values |= {
            name.removeprefix(OWN): float(value)
            for name, value in logged.items()
            if name.startswith(OWN) and isinstance(value, int | float)
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

    # ---- what a method adds --------------------------------------------------------------------------------------

    def after_optimizer_step(self) -> None:
        """For methods with a controller; runs before the step's evaluation and checkpoint."""

    def save_state(self, folder: Path) -> None:
        """Write into a checkpoint what the next step depends on beyond weights, optimizer, schedule and generators; on
        the first rank only, as it is the same on all."""

    def save_own_state(self, folder: Path) -> None:
        """Write what differs between the ranks; on each of them, to files of its own."""

    def load_state(self, folder: Path) -> None:
        """Take both back, on each rank, after the Trainer has restored its own."""

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
        if checkpoint is not None:
            self.load_state(Path(checkpoint))

    # ---- checkpoints ---------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging else super()._get_output_dir(trial)  # type: ignore[misc]

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step  # type: ignore[attr-defined]
        first = self.is_world_process_zero()  # type: ignore[attr-defined]
        self._staging = Path(self._agreed(str(self.link.staging(step)) if first else ""))
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
            folder = self._staging / f"checkpoint-{step}"
            self.save_own_state(folder)
            self.accelerator.wait_for_everyone()  # type: ignore[attr-defined]  # every rank's own files are written
            if first:
                self.save_state(folder)
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
