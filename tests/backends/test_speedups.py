"""The stage's log says which optional speed-ups are used, and why others are not."""

from __future__ import annotations

from types import SimpleNamespace

from engine.backends.pytorch.speedups import told, uses_vllm


def lines(device="cpu", packages=(), **stage):
    config = SimpleNamespace(_attn_implementation="sdpa")
    policy = SimpleNamespace(device=SimpleNamespace(type=device), model=SimpleNamespace(config=config))
    stage = SimpleNamespace(**{"optimizer": "adamw", "method": "sft"} | stage)
    return "\n".join(told(policy, stage, lambda name: name if name in packages else None))


def test_vllm_is_used_with_a_cuda_device_and_named_where_it_is_not():
    assert "transformers (vLLM needs a CUDA device)" in lines(method="grpo", packages=["vllm"])
    assert "transformers (vLLM is not installed)" in lines("cuda", method="rlvr")
    assert "sampled by vLLM" in lines("cuda", ["vllm"], method="grpo")
    assert uses_vllm(True, lambda name: name) and not uses_vllm(False, lambda name: name)
    assert "completions" not in lines("cuda", ["vllm"])


def test_attention_and_optimizer_are_told():
    assert "attention: sdpa" in lines() and "flash kernel" in lines("cuda")
    assert "full precision" in lines() and "paged-adamw-8bit, by bitsandbytes" in lines(optimizer="paged-adamw-8bit")


def test_the_log_has_them(backend, lineage, settings, stage, rows, link_type, tmp_path, capsys):
    policy = backend.load(lineage, tmp_path, settings())
    backend.train("sft", policy, rows["sft"], stage(steps=1), link_type(tmp_path / "run"))
    assert "speed-ups: attention: sdpa" in capsys.readouterr().out
