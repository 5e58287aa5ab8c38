"""A model of random weights in a wanted shape, trained on rows of token ids, and the peak that MLX measured."""

from __future__ import annotations

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


def sides(method: str, rows: int, length: int, vocabulary: int):
    """Training rows of that many random ids: for SFT themselves, for the preference methods both sides of a pair."""
    from engine.backends.mlx.batches import Row
    from engine.backends.mlx.preferences import Pair

    draw = np.random.default_rng(0)

    def row():
        return Row(draw.integers(1, vocabulary, length).tolist(), [0] + [1] * (length - 1))

    return [row() if method == "sft" else Pair(row(), row()) for _ in range(rows)]


def trainer_of(method: str, policy, stage, rows):
    from engine.backends.mlx.dpo import DPOTrainer
    from engine.backends.mlx.orpo import ORPOTrainer
    from engine.backends.mlx.sft import SFTTrainer

    return {"sft": SFTTrainer, "dpo": DPOTrainer, "orpo": ORPOTrainer}[method](policy, stage, rows)


def peak_of_a_step(method: str, policy, stage, length: int, times: int = 2) -> float:
    """Most bytes that one optimizer step held, weights included; the last of ``times``, since the first compiles."""
    import mlx.core as mx

    rows = sides(method, stage.batch_size, length, policy.network.vocabulary)
    trainer = trainer_of(method, policy, stage, rows)
    policy.network.model.train()
    batches = trainer.batches(0)
    mx.eval(list(batches[0].values()), policy.network.model.parameters())
    for _ in range(times):
        mx.reset_peak_memory()
        gradients, _ = trainer.gradients(batches)
        trainer.update(gradients)
    return float(mx.get_peak_memory())
