"""Training on MLX: resumed runs are the uninterrupted ones, adapters cross to PyTorch and back, wrong forms are told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.backends import open_backend
from engine.models.lineage import Adapter
from recipes.errors import InputError

mx = pytest.importorskip("mlx.core")


@pytest.fixture
def backend():
    return open_backend("mlx")


def same(first, second):
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


CLOCK = ("seconds", "tokens_per_second", "memory_mib")


def told(link, after=0):
    """Every figure of every later step but what a clock or a meter says."""
    return {
        step: {name: value for name, value in values.items() if name not in CLOCK}
        for step, values in link.steps
        if step > after
    }


@pytest.mark.parametrize("method", ["sft", "dpo", "orpo", "cpo"])
def test_a_resumed_run_is_bit_identical(method, backend, lineage, settings, stage, rows, link_type, tmp_path):
    stage = stage(steps=8, accumulation=2, weight_decay=0.01)
    dropout = settings(dropout=0.1 if method == "sft" else 0.0)
    whole = backend.load(lineage, tmp_path, dropout)
    first = link_type(tmp_path / "whole")
    first.outside = (6,)
    backend.train(method, whole, rows[method], stage, first)

    def disturb(step):  # an evaluation between the steps must not move training
        again.generate([rows["sft"][0][:1]], max_new_tokens=4, temperature=1.0, seed=step)

    again = backend.load(lineage, tmp_path, dropout)
    second = link_type(tmp_path / "resumed", resume=(tmp_path / "whole" / "step-5", 5), after_step=disturb)
    second.outside = (6,)
    backend.train(method, again, rows[method], stage, second)
    assert same(whole.network.trained(), again.network.trained())
    assert told(second) == told(first, after=5) and len(second.steps) == 3


def test_a_stop_saves_where_it_stands(backend, lineage, settings, stage, rows, link_type, tmp_path):
    policy = backend.load(lineage, tmp_path, settings())
    link = link_type(tmp_path / "stopped", every=1000, stop_at=3)
    backend.train("dpo", policy, rows["dpo"], stage(), link)
    assert [step for step, _ in link.steps] == [1, 2, 3]
    names = {path.name for path in (tmp_path / "stopped" / "step-3").rglob("*") if path.is_file()}
    assert {"adapter_model.safetensors", "optimizer.safetensors", "training.json"} <= names


def test_gradient_checkpointing_changes_nothing_but_memory(
    backend, lineage, settings, stage, rows, link_type, tmp_path
):
    losses = []
    for checkpointing in (False, True):
        policy = backend.load(lineage, tmp_path, settings(gradient_checkpointing=checkpointing))
        link = link_type(tmp_path / f"run-{checkpointing}", every=1000)
        backend.train("sft", policy, rows["sft"], stage(steps=4, gradient_checkpointing=checkpointing), link)
        losses.append([values["loss"] for _, values in link.steps])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[0][-1] < losses[0][0]


def test_an_adapter_crosses_to_pytorch_and_back(backend, lineage, settings, stage, rows, link_type, tmp_path):
    first = backend.load(lineage, tmp_path, settings(dtype="fp32"))
    backend.train("sft", first, rows["sft"], stage(steps=4), link_type(tmp_path / "a", every=1000))
    backend.save_output(first, tmp_path / "one")
    carried = replace(lineage, adapter=Adapter(path="one/adapter", sha256=""))
    torch_backend = open_backend("pytorch")
    second = torch_backend.load(carried, tmp_path, settings(dtype="fp32", rank=2))
    prompts, texts = [row[:1] for row in rows["sft"][:4]], [row[1]["content"] for row in rows["sft"][:4]]
    for ours, theirs in zip(first.score(prompts, texts), second.score(prompts, texts), strict=True):
        assert ours.logprob == pytest.approx(theirs.logprob, rel=1e-4)
    torch_backend.save_output(second, tmp_path / "two")
    back = backend.load(replace(lineage, adapter=Adapter(path="two/adapter", sha256="")), tmp_path, settings())
    assert same(first.network.trained(), back.network.trained())


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_quantized_bases_train(quantization, backend, lineage, settings, stage, rows, link_type, tmp_path):
    policy = backend.load(lineage, tmp_path, settings(quantization=quantization))
    link = link_type(tmp_path / "run", every=1000)
    backend.train("sft", policy, rows["sft"], stage(steps=6), link)
    assert link.steps[-1][1]["loss"] < link.steps[0][1]["loss"]
    assert "lora_a" in next(iter(policy.network.trained()))


def test_full_fine_tuning_hands_on_a_model_that_pytorch_reads(
    backend, lineage, settings, stage, rows, link_type, tmp_path
):
    policy = backend.load(lineage, tmp_path, settings(training="full", needs_reference=True, dtype="fp32"))
    start = policy.network.trained()
    link = link_type(tmp_path / "run", every=1000)
    backend.train("dpo", policy, rows["dpo"], stage(steps=3, learning_rate=1e-4), link)
    now = policy.network.trained()
    assert all(not np.array_equal(start[name], now[name]) for name in start)
    backend.save_output(policy, tmp_path / "out")
    base = replace(lineage.base, path=str(tmp_path / "out" / "model"))
    theirs = open_backend("pytorch").load(replace(lineage, base=base), tmp_path, settings(training="none"))
    prompts, texts = [row.prompt for row in rows["dpo"][:3]], [row.chosen for row in rows["dpo"][:3]]
    for one, other in zip(policy.score(prompts, texts), theirs.score(prompts, texts), strict=True):
        assert one.logprob == pytest.approx(other.logprob, rel=1e-4)


def changed_config(lineage, folder, **changes):
    """The lineage with a copy of its base whose config says something else."""
    folder.mkdir()
    for path in Path(lineage.base.path).iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))
    return replace(lineage, base=replace(lineage.base, path=str(folder)))


def test_weights_of_the_other_framework_are_named(backend, lineage, settings, tmp_path):
    bnb = changed_config(lineage, tmp_path / "bnb", quantization_config={"quant_method": "bitsandbytes"})
    with pytest.raises(InputError, match="bitsandbytes.*backend: pytorch"):
        backend.load(bnb, tmp_path, settings())
    mlx = changed_config(lineage, tmp_path / "mlx", quantization={"group_size": 64, "bits": 4})
    with pytest.raises(InputError, match="quantized by MLX.*backend: mlx"):
        open_backend("pytorch").load(mlx, tmp_path, settings())


def test_what_mlx_lacks_is_named_with_the_nearest(backend, lineage, settings, stage, rows, link_type, tmp_path):
    policy = backend.load(lineage, tmp_path, settings())
    with pytest.raises(InputError, match="adamw-8bit.*adamw"):
        backend.train("sft", policy, rows["sft"], stage(optimizer="adamw-8bit"), link_type(tmp_path / "run"))


def test_the_rotary_base_of_a_new_config_is_read(backend, lineage, settings, tmp_path):
    """mlx-lm's Llama looks for ``rope_theta`` alone; transformers 5 writes it into ``rope_parameters``."""
    other = changed_config(
        lineage, tmp_path / "theta", rope_parameters={"rope_theta": 500000.0, "rope_type": "default"}
    )
    policy = backend.load(other, tmp_path, settings())
    assert policy.network.layers[0].self_attn.rope.base == 500000.0
