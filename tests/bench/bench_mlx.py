"""MLX: our SFT step against mlx-lm's own trainer, and a DPO step against the sum of its parts; alternating in one run.

The same model, LoRA layers, rows, batch and length on both sides; CPU time, and the peak that MLX measured beyond what
it held before. On Linux preload OpenBLAS as the stages do (README), or the reference BLAS is what is compared.
"""

from __future__ import annotations

import os

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")

import contextlib
import gc
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
from mlx_lm.tuner import trainer as theirs
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model

from engine.backends import open_backend
from engine.backends.interface import LoadSettings
from engine.backends.mlx.batches import Row
from engine.backends.mlx.dpo import DPOTrainer
from engine.backends.mlx.logprobs import token_logprobs
from engine.backends.mlx.preferences import Pair
from engine.backends.mlx.sft import SFTTrainer
from engine.models.lineage import Base, Lineage
from recipes.resources import resolve_model

ROUNDS, STEPS, SKIPPED = 4, 24, 4
BATCH, LENGTH, RANK = 16, 96, 8
FOLDER = resolve_model("lab", Path("."))
STAGE = SimpleNamespace(
    steps=STEPS, batch_size=BATCH, accumulation=1, learning_rate=1e-4, schedule="constant", warmup=0.0, weight_decay=0.0,
    max_grad_norm=1.0, gradient_checkpointing=False, max_length=LENGTH, beta=0.1, sft_weight=0.0,
)  # fmt: skip


def ids(rows: int, seed: int = 0) -> list[list[int]]:
    return np.random.default_rng(seed).integers(10, 800, (rows, LENGTH)).tolist()


def counted(row: list[int]) -> Row:
    return Row(row, [0] + [1] * (LENGTH - 1))


def policy():
    settings = LoadSettings("none", "fp32", "lora", RANK, 2.0 * RANK, 0.0, "all-linear", False, 7, False)
    return open_backend("mlx").load(Lineage(Base("lab", str(FOLDER), None, {})), Path("."), settings)


def measured(train: Callable[[Callable[[], None]], None]) -> tuple[float, float]:
    """``(tokens a second of CPU time, peak MiB)`` of a training that calls its argument after every step."""
    gc.collect()
    mx.clear_cache()
    held = mx.get_active_memory()
    marks: list[float] = []

    def stepped() -> None:
        marks.append(time.process_time())
        if len(marks) == SKIPPED:  # compiled by now
            mx.reset_peak_memory()

    train(stepped)
    peak = (mx.get_peak_memory() - held) / 2**20
    return (len(marks) - SKIPPED) * BATCH * LENGTH / (marks[-1] - marks[SKIPPED - 1]), peak


def ours(stepped: Callable[[], None]) -> None:
    trainer = SFTTrainer(policy(), STAGE, [counted(row) for row in ids(BATCH * 4)])
    trainer.train(_Link(stepped))


def mlx_lm(stepped: Callable[[], None]) -> None:
    model, _ = load_model(FOLDER)
    model.set_dtype(mx.float32)
    model.freeze()
    linear_to_lora_layers(model, len(model.layers), {"rank": RANK, "scale": 2.0, "dropout": 0.0})
    model.train()
    with tempfile.TemporaryDirectory() as folder:
        arguments = theirs.TrainingArgs(
            batch_size=BATCH, iters=STEPS, steps_per_report=1, steps_per_eval=10**9, steps_per_save=10**9, val_batches=0,
            max_seq_length=LENGTH + 1, adapter_file=str(Path(folder) / "adapters.safetensors"),
        )  # fmt: skip
        callback = SimpleNamespace(on_train_loss_report=lambda _info: stepped(), on_val_loss_report=lambda _info: None)
        rows = [(row + [0], 0) for row in ids(BATCH * 4)]
        with contextlib.redirect_stdout(io.StringIO()):  # it draws a table
            theirs.train(model, optim.Adam(learning_rate=1e-4), rows, None, arguments, training_callback=callback)


class _Link:
    """As much of a TrainingLink as a training without checkpoints and evaluations needs."""

    def __init__(self, stepped: Callable[[], None]) -> None:
        self._stepped = stepped

    def resume_from(self) -> None:
        return None

    def step(self, _step: int, _total: int, _values: dict[str, float]) -> None:
        self._stepped()

    def after_step(self, _step: int, _total: int) -> None:
        pass

    def wants_checkpoint(self, _step: int, _total: int) -> bool:
        return False

    def stop_requested(self) -> bool:
        return False


def dpo_parts() -> list[float]:
    """A DPO step over: gradients on as many rows, and one reference forward with its log-probabilities."""
    draw = [counted(row) for row in ids(2 * BATCH)]
    pairs = [Pair(chosen, rejected) for chosen, rejected in zip(draw[:BATCH], draw[BATCH:], strict=True)]
    dpo = DPOTrainer(policy(), STAGE, pairs)
    sft = SFTTrainer(policy(), SimpleNamespace(**{**vars(STAGE), "batch_size": 2 * BATCH}), draw)
    step_arrays, rows = dpo.batches(0), sft.batches(0)
    network = sft.network

    @mx.compile
    def reference(arrays: dict[str, mx.array]) -> mx.array:
        hidden = network.hidden(arrays["ids"])
        return token_logprobs(network, hidden.reshape(-1, hidden.shape[-1])[arrays["positions"]], arrays["targets"])

    def step(trainer, batches) -> None:
        gradients, _ = trainer.gradients(batches)
        trainer.update(gradients)

    def parts() -> None:
        step(sft, rows)
        mx.eval(reference(rows[0]))

    ratios = []
    for turn in range(2 * ROUNDS + 2):
        seconds = {}
        for side in ("whole", "parts") if turn % 2 else ("parts", "whole"):
            before = time.process_time()
            for _ in range(3):
                step(dpo, step_arrays) if side == "whole" else parts()
            seconds[side] = time.process_time() - before
        ratios.append(seconds["whole"] / seconds["parts"])
    return ratios[2:]  # the first compile


def row(what: str, ratios: list[float], more: str, wanted: str) -> str:
    found = f"{statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f}, n {len(ratios)}){more}"
    return f"| {what} | {found} | {wanted} |"


def rows() -> list[str]:
    rates, peaks, fastest = [], [], []
    for turn in range(ROUNDS):
        found = {}
        for side in (ours, mlx_lm) if turn % 2 else (mlx_lm, ours):
            found[side] = measured(side)
        rates.append(found[ours][0] / found[mlx_lm][0])
        peaks.append(found[ours][1] / found[mlx_lm][1])
        fastest.append(found[ours][0])
    return [
        row("MLX: SFT tokens a second against mlx-lm's trainer", rates, f", {max(fastest):.0f} tokens/s", "≥ 1"),
        row("MLX: SFT peak memory against mlx-lm's trainer", peaks, "", "≤ 1"),
        row("MLX: a DPO step against training on both sides and a reference forward", dpo_parts(), "", "≤ 1.1"),
    ]
