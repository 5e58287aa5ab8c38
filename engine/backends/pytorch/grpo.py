"""GRPO (Shao et al. 2024) through TRL's GRPOTrainer; rewards come from a verifier, and every resume is to the bit unless
vLLM samples, whose state no checkpoint has.

TRL restarts its prompt order after the first epoch and forgets buffered completions; the sampler here derives its order
from (seed, epoch), and the buffer is part of every checkpoint.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors import safe_open
from safetensors.torch import save_file
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import RepeatSampler, add_fused_lm_head

from engine.backends.groups import (
    KL_EVERY,
    KL_ROWS,
    KL_TOKENS,
    SHOWN,
    SHOWN_EVERY,
    advantage_variance,
    component_means,
    questions_that_fit,
    silent_groups,
    told_of,
)
from engine.backends.interface import TrainingLink
from engine.backends.pytorch.device import in_fixed_order
from engine.backends.pytorch.divergence import (
    captured_hidden_states,
    predicting_positions,
    reference_forward,
    token_divergence,
)
from engine.backends.pytorch.generation import generation_arguments
from engine.backends.pytorch.policy import TorchPolicy
from engine.backends.pytorch.training import LinkedTrainer, training_arguments
from engine.backends.pytorch.vllm_sampler import answer_to_the_limit, keep_base
from engine.backends.tokens import encode_prompt
from engine.verify.interface import Verifier
from recipes.errors import InputError, Problem

BUFFER = "completions-{}.safetensors"
"""What is left of a generation, by rank."""


class EpochSampler(RepeatSampler):
    """Each epoch's order from (seed, epoch), so that a resumed epoch is the one that was interrupted."""

    def set_epoch(self, epoch: int) -> None:
        self.generator.manual_seed((self.seed or 0) + epoch)


class LinkedGRPOTrainer(LinkedTrainer, GRPOTrainer):
    """GRPOTrainer with the gauges, the live samples, and state that survives."""

    head_outputs = ("log_probs", "entropy")
    verifier: Verifier
    group_size: int

    # ---- rewards -------------------------------------------------------------------------------------------------

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any) -> torch.Tensor:
        asked = [prompt[-1]["content"] for prompt in prompts]
        texts = [completion[-1]["content"] for completion in completions]
        answers = [row["answer"] for row in inputs]
        verdicts = self.verifier.verify(asked, texts, answers)
        rewards = torch.tensor([one.reward for one in verdicts], device=self.accelerator.device)
        rewards = self.accelerator.gather(rewards)
        told = self._metrics["train"]
        for name, value in component_means(verdicts):
            told[f"gauge/{name}"].append(value)
        correct = torch.tensor([one.correctness for one in verdicts], device=self.accelerator.device)
        variance = advantage_variance(self.accelerator.gather(correct).tolist(), self.group_size)
        told["gauge/advantage_variance"].append(variance)
        # Not TRL's frac_reward_zero_std: the deviation of eight rewards of 0.3 is no exact zero in fp32.
        told["gauge/silent_groups"].append(silent_groups(rewards.tolist(), self.group_size))
        if self.is_world_process_zero() and self.state.global_step % SHOWN_EVERY == 0:
            for place in range(min(SHOWN, self.group_size)):
                self.link.sample(self.state.global_step, asked[place], texts[place], told_of(verdicts[place]))
        self.scored(asked, texts, answers, completion_ids_list)
        return rewards.unsqueeze(1)

    def compare_with(self, reference: torch.nn.Module, weight: float) -> None:
        """In full fine-tuning: take the policy's frozen start for the KL in the loss, as ``__init__`` does with a model that
        it loads by the base's name. That would be a third one in memory, and without the lineage's edits."""
        add_fused_lm_head(reference, temperature=self.temperature)
        self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)
        self.beta = self.args.beta = weight

    def prepare(self, stage: Any) -> None:
        """Take from the stage what the objective needs beyond TRL's settings."""

    def scored(self, prompts: list[str], texts: list[str], answers: list[str], ids: list[list[int]]) -> None:
        """For methods that look at more than the reward."""

    def tokens_in(self, inputs: Any) -> int:
        return 0  # prompts that are still to be answered; counted below

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        inputs = super()._prepare_inputs(generation_batch)
        self._tokens += int(inputs["prompt_mask"].sum() + inputs["completion_mask"].sum())
        return inputs

    # ---- the probe -----------------------------------------------------------------------------------------------

    def _longest_batch(self) -> dict[str, Any] | None:
        """A micro-batch of the longest prompts, all answered up to the limit: what training can meet at worst."""
        rows = max((encode_prompt(self.policy.tokenizer, row["prompt"]) for row in self.train_dataset), key=len)
        count, limit = self.args.per_device_train_batch_size, self.max_completion_length
        device = self.policy.device
        prompts = torch.tensor([rows] * count, device=device)
        completions = torch.full((count, limit), rows[-1], device=device)
        return {
            "prompt_ids": prompts,
            "prompt_mask": torch.ones_like(prompts),
            "completion_ids": completions,
            "completion_mask": torch.ones_like(completions),
            "advantages": torch.linspace(-1.0, 1.0, count, device=device),
            "num_items_in_batch": torch.tensor(count * limit, device=device),
            **({"ref_per_token_logps": torch.zeros((count, limit), device=device)} if self.beta else {}),
            **({"importance_sampling_ratio": torch.ones((count, 1), device=device)} if self.use_vllm else {}),
        }

    def _probe_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Answer a whole generation's prompts up to the limit, then the loss and its backward."""
        model.train()
        count = self.args.per_device_train_batch_size * self.args.steps_per_generation
        prompts = inputs["prompt_ids"][:1].expand(count, -1)
        if self.use_vllm:
            with in_fixed_order(False):
                answer_to_the_limit(self.vllm_generation, prompts.tolist(), self.num_generations)
        else:
            limit = self.max_completion_length
            config = copy.deepcopy(self.generation_config)
            config.min_new_tokens, config.max_new_tokens = limit, limit
            with self.policy.weights("policy") as policy, in_fixed_order(False):
                policy.generate(prompts, attention_mask=torch.ones_like(prompts), generation_config=config)
        with self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs)
        self.accelerator.backward(loss)

    # ---- the gauge -----------------------------------------------------------------------------------------------

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        due = self.model.training and self.state.global_step % KL_EVERY == 0 and self.policy.has("start")
        if not due:
            loss = super()._compute_loss(model, inputs)
            self._metrics["train"].pop("kl", None)  # TRL's is a sampled estimate; ours below is exact
            return loss
        with captured_hidden_states(self.policy.model) as hidden:
            loss = super()._compute_loss(model, inputs)
        self._metrics["train"].pop("kl", None)
        rows = slice(0, KL_ROWS)
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)[rows]
        attention = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)[rows]
        counted = torch.cat([torch.zeros_like(inputs["prompt_mask"]), inputs["completion_mask"]], dim=1)[rows]
        positions = predicting_positions(counted, KL_TOKENS)
        if positions.any():
            reference = reference_forward(self.policy, ids, attention, bool(self.args.bf16))
            policy, reference = (states[:, :-1][positions] for states in (hidden[0][rows], reference))
            divergence = token_divergence(self.policy.model, policy, reference, self.policy.reference).mean().item()
            self._metrics["train"]["gauge/kl"].append(divergence)
        return loss

    # ---- resuming ------------------------------------------------------------------------------------------------

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        plain = super()._get_train_sampler(dataset)
        self._order = EpochSampler(
            plain.data_source, plain.mini_repeat_count, plain.batch_size, plain.repeat_count, plain.shuffle, plain.seed
        )
        return self._order

    def _run_epoch(self, *args: Any, epoch: int, **kwargs: Any) -> None:
        # Told here as well: in several processes accelerate (1.15) loses the way to a sampler below what skips the
        # steps that a resume does not repeat (SkipBatchSampler over BatchSamplerShard), and epoch 0 would come again.
        self._order.set_epoch(epoch)
        super()._run_epoch(*args, epoch=epoch, **kwargs)

    def save_own_state(self, folder: Path) -> None:
        buffer = self._buffered_inputs or []
        tensors = {
            f"{place}.{name}": value.clone().contiguous()  # scalars are shared between the parts
            for place, batch in enumerate(buffer)
            for name, value in batch.items()
            if torch.is_tensor(value)
        }
        save_file(tensors, self._own(folder), {"step": str(self._step), "batches": str(len(buffer))})

    def load_state(self, folder: Path) -> None:
        if not self._own(folder).is_file():
            found, accepted = (
                "no completions of this process: an earlier version wrote it",
                "`finetune-tui run` of its recipe",
            )
            raise InputError([Problem(str(folder), None, None, found, accepted)])
        with safe_open(self._own(folder), "pt") as file:
            told = file.metadata()
            batches: list[dict[str, torch.Tensor]] = [{} for _ in range(int(told["batches"]))]
            for name in file.keys():  # noqa: SIM118 - it is no dict
                place, _, key = name.partition(".")
                batches[int(place)][key] = file.get_tensor(name).to(self.accelerator.device)
        self._step = int(told["step"])
        self._buffered_inputs = batches or None

    def _own(self, folder: Path) -> Path:
        """Each rank answered its own share of a generation's prompts."""
        return folder / BUFFER.format(self.accelerator.process_index)


def grpo_arguments(stage: Any, policy: TorchPolicy) -> dict[str, Any]:
    """The fields of GRPOConfig that make the objective of a recipe's stage."""
    return {
        "num_generations": stage.group_size,
        "max_completion_length": stage.max_new_tokens,
        "temperature": stage.temperature,
        "top_k": 0,
        "top_p": 1.0,
        "beta": stage.kl_weight,
        "epsilon": stage.clip,
        "num_iterations": stage.num_iterations,
        "steps_per_generation": stage.steps_per_generation or stage.accumulation,
        "loss_type": stage.loss,
        **generation_arguments(policy, stage),
    }


def train_group(kind: type[LinkedGRPOTrainer], policy: TorchPolicy, rows: Any, stage: Any, link: TrainingLink) -> None:
    """Train on ``rows.questions`` (engine.data.formats.Question) with the rewards of ``rows.verifier``."""
    questions = questions_that_fit(policy.tokenizer, rows.questions, stage)
    dataset = Dataset.from_list([{"prompt": list(row.prompt), "answer": row.answer} for row in questions])
    if not stage.kl_weight:  # with a KL in the loss TRL makes the copy itself, and refuses another one
        policy.freeze_start()
    arguments = training_arguments(stage, policy, link.folder()) | grpo_arguments(stage, policy)
    if policy.reference is not None:
        arguments["beta"] = 0.0  # or TRL would load a model of its own to compare with
    trainer = kind(
        model=policy.model,
        reward_funcs=[_never_called],
        args=GRPOConfig(**arguments),
        train_dataset=dataset,
        processing_class=policy.tokenizer,
    )
    if policy.reference is not None:
        trainer.compare_with(policy.reference, stage.kl_weight)
    if trainer.use_vllm:
        keep_base(trainer.vllm_generation)
    trainer.verifier = rows.verifier
    trainer.group_size = stage.group_size
    trainer.prepare(stage)
    trainer.train_linked(link, policy)


def _never_called(**_columns: Any) -> list[float]:
    """TRL wants a reward function by name; ``_calculate_rewards`` asks the verifier itself."""
    raise AssertionError("rewards are calculated by the verifier")


def train(policy: TorchPolicy, rows: Any, stage: Any, link: TrainingLink) -> None:
    train_group(LinkedGRPOTrainer, policy, rows, stage, link)
