"""A model of random weights in a wanted shape, trained on rows of token ids, and the peak that MLX measured."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import numpy as np

from recipes.resources import resolve_model


def random_model(folder: Path, **shape) -> Path:
    """A Llama of that shape as a Hugging Face folder, with lab-nano's tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(tie_word_embeddings=True, eos_token_id=0, **shape)
    LlamaForCausalLM(config).save_pretrained(folder)
    for path in resolve_model("lab-nano", Path(".")).iterdir():
        if path.is_file() and ("token" in path.name or path.name.endswith("jinja")):
            shutil.copy(path, folder / path.name)
    return folder


def _row(draw, length: int, vocabulary: int):
    from engine.backends.mlx.batches import Row

    return Row(draw.integers(1, vocabulary, length).tolist(), [0] + [1] * (length - 1))


def sides(method: str, rows: int, length: int, vocabulary: int):
    """Training rows of that many random ids: for SFT themselves, for the preference methods both sides of a pair."""
    from engine.backends.mlx.preferences import Pair

    draw = np.random.default_rng(0)
    return [
        _row(draw, length, vocabulary)
        if method == "sft"
        else Pair(_row(draw, length, vocabulary), _row(draw, length, vocabulary))
        for _ in range(rows)
    ]


def micro_batch(method: str, policy, stage, length: int):
    """``(trainer, the arrays of one micro-batch)`` with every row ``length`` tokens long. GRPO's are sampled first, all up
    to the limit, as its longest batch is."""
    from engine.backends.mlx.cpo import CPOTrainer
    from engine.backends.mlx.dpo import DPOTrainer
    from engine.backends.mlx.grpo import GRPOTrainer
    from engine.backends.mlx.orpo import ORPOTrainer
    from engine.backends.mlx.sft import SFTTrainer

    vocabulary = policy.network.vocabulary
    if method == "grpo":
        trainer = GRPOTrainer(policy, stage, [], None)
        draw = np.random.default_rng(0)
        trainer.prompts = [tuple(draw.integers(1, vocabulary, length - stage.max_new_tokens).tolist())]
        return trainer, trainer.longest()
    rows = sides(method, stage.batch_size, length, vocabulary)
    if method == "cpo":
        draw = np.random.default_rng(1)
        anchors = [_row(draw, length, vocabulary) for _ in range(stage.batch_size)]
        trainer = CPOTrainer(policy, stage, rows, anchors)
    else:
        trainer = {"sft": SFTTrainer, "dpo": DPOTrainer, "orpo": ORPOTrainer}[method](policy, stage, rows)
    return trainer, trainer.batches(0)


def peak_of_a_step(method: str, policy, stage, length: int, times: int = 2) -> float:
    """Most bytes that one optimizer step held, weights included; GRPO's generation counts too.

    The least of ``times``: the first may compile, and MLX sends more operations ahead where the machine is busy."""
    import mlx.core as mx

    gc.collect()  # earlier trainers hold arrays in cycles
    policy.network.model.train()
    mx.reset_peak_memory()
    trainer, batches = micro_batch(method, policy, stage, length)
    mx.eval(list(batches[0].values()), policy.network.model.parameters())
    sampled = float(mx.get_peak_memory()) if method == "grpo" else 0.0
    peaks = []
    for _ in range(times):
        mx.reset_peak_memory()
        gradients, _ = trainer.gradients(batches)
        trainer.update(gradients)
        peaks.append(float(mx.get_peak_memory()))
    return max(sampled, min(peaks))
