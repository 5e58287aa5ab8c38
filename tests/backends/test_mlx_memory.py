"""Memory on MLX: checkpointing and pieces of the logits lower the measured peak, and a stage stops at the limit in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.backends import open_backend
from engine.backends.mlx import device, logprobs
from engine.stages.memory import ran_out, smaller
from tests.backends.mlx_models import peak_of_a_step, random_model

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")
SHAPE = {
    "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 8, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 4096,
}  # fmt: skip
LENGTH = 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_model(tmp_path_factory.mktemp("model"), **SHAPE)


@pytest.fixture
def peak(folder, lineage, settings, stage, tmp_path):
    other = replace(lineage, base=replace(lineage.base, path=str(folder)))

    def measured(method="sft", checkpointing=False):
        policy = open_backend("mlx").load(other, tmp_path, settings(gradient_checkpointing=checkpointing, dtype="fp32"))
        return peak_of_a_step(method, policy, stage(gradient_checkpointing=checkpointing), LENGTH)

    return measured


def test_checkpointing_and_pieces_of_the_logits_really_lower_the_peak(peak, monkeypatch):
    tokens = 4 * LENGTH
    whole_logits = 4.0 * tokens * SHAPE["vocab_size"]
    found = {}
    for pieces, checkpointing in ((2**18, False), (2**18, True), (2**30, True)):
        monkeypatch.setattr(logprobs, "LOGITS_AT_ONCE", pieces)
        found[pieces, checkpointing] = peak(checkpointing=checkpointing)
    assert found[2**18, True] < 0.6 * found[2**18, False], found
    assert found[2**30, True] > found[2**18, True] + 1.5 * whole_logits, f"the logits were whole all the same: {found}"


def test_a_stage_stops_at_the_limit_with_a_message(lineage, settings, stage, rows, link_type, tmp_path, monkeypatch):
    """A small limit in the place of the recommended working set: set for MLX, and the first thing over it ends it."""
    before = mx.set_memory_limit(2**40)
    try:
        limit = 2 * 2**20
        monkeypatch.setattr(device, "recommended", lambda: limit)
        mx.reset_peak_memory()
        policy = open_backend("mlx").load(lineage, tmp_path, settings())
        assert mx.set_memory_limit(limit) == limit, "the limit was not given to MLX"
        link = link_type(tmp_path / "run", every=1000)
        with pytest.raises(
            MemoryError, match=r"out of memory: \d+ MiB were needed, 2 MiB is what this machine"
        ) as told:
            open_backend("mlx").train("sft", policy, rows["sft"], stage(batch_size=24), link)
        assert ran_out(told.value) and smaller(stage(batch_size=24)) == {"batch_size": 12, "accumulation": 2}
        assert not link.steps
        with pytest.raises(MemoryError):
            policy.generate([rows["sft"][0][:1]], max_new_tokens=2, temperature=0.0, seed=0)
        with pytest.raises(MemoryError):
            policy.score([rows["sft"][0][:1]], ["Tarn."])
    finally:
        mx.set_memory_limit(before)
        monkeypatch.undo()
        device.prepare()


def test_the_peak_is_told_with_every_step(lineage, settings, stage, rows, link_type, tmp_path):
    policy = open_backend("mlx").load(lineage, tmp_path, settings())
    link = link_type(tmp_path / "run", every=1000)
    told = []
    link.measured_longest = lambda rows, length, memory_mib, seconds: told.append(memory_mib)
    open_backend("mlx").train("sft", policy, rows["sft"], stage(steps=2), link)
    assert told[0] > 0
    peaks = [values["memory_mib"] for _, values in link.steps]
    assert peaks[0] >= told[0] and peaks == sorted(peaks)
