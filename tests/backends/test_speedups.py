"""The stage's log says which optional speed-ups are used, and why others are not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from engine.backends.pytorch.attention import pick_attention
from engine.backends.pytorch.speedups import told
from recipes.errors import InputError


def lines(
    device="cpu",
    packages=(),
    programs=("g++",),
    used="sdpa",
    wanted="auto",
    dtype=torch.bfloat16,
    fixed_order=True,
    quantization="none",
    edits=(),
    **stage,
):
    model = SimpleNamespace(config=SimpleNamespace(_attn_implementation=used), dtype=dtype)
    settings = SimpleNamespace(attention=wanted, fixed_order=fixed_order, quantization=quantization)
    acting = SimpleNamespace(lineage=list(edits))
    policy = SimpleNamespace(device=SimpleNamespace(type=device), model=model, settings=settings, interventions=acting)
    stage = SimpleNamespace(**{"optimizer": "adamw", "method": "sft"} | stage)
    return "\n".join(told(policy, stage, among(packages), among(programs)))


def among(names):
    return lambda name: name if name in names else None


def test_vllm_is_used_with_a_cuda_device_and_named_where_it_is_not():
    assert "transformers (vLLM needs a CUDA device)" in lines(method="grpo", packages=["vllm"])
    assert "transformers (vLLM is not installed)" in lines("cuda", method="rlvr")
    assert "sampled by vLLM, in this process (it is installed)" in lines("cuda", ["vllm"], method="grpo")
    assert "transformers (vLLM cannot take over" in lines("cuda", ["vllm"], quantization="4bit", method="grpo")
    assert "transformers (the lineage's edits act" in lines("cuda", ["vllm"], edits=["one"], method="rlvr")
    said = lines("cuda", ["vllm"], method="rlvr", generation="transformers")
    assert "transformers (as the recipe says)" in said and "vLLM" not in said
    assert "completions" not in lines("cuda", ["vllm"])
    with pytest.raises(InputError, match="generation.*`vllm`, but vLLM is not installed.*`generation: auto`"):
        lines("cuda", method="grpo", generation="vllm")


def test_a_resume_is_not_said_to_be_to_the_bit_where_vllm_samples():
    said = lines("cuda", ["vllm"], method="grpo")
    assert "a resume draws other completions and does not end in the same bits" in said
    assert "so that a resume ends in the same bits" not in said
    assert "so that a resume ends in the same bits" in lines("cuda", ["vllm"], method="sft")
    assert "so that a resume ends in the same bits" in lines("cuda", method="grpo")
    assert "a resume may end in other bits" in lines("cuda", ["vllm"], method="grpo", fixed_order=False)


def test_attention_and_optimizer_are_told():
    assert "attention: sdpa (FlashAttention 2 needs a CUDA device)" in lines() and "flash kernel" in lines("cuda")
    assert "not installed: `pip install flash-attn" in lines("cuda")
    assert "16-bit weights, these are float32" in lines("cuda", ["flash_attn"], dtype=torch.float32)
    assert "flash_attention_2 (it is installed)" in lines("cuda", ["flash_attn"], used="flash_attention_2")
    assert "sdpa (the model does not take flash_attention_2" in lines("cuda", ["flash_attn"])
    assert "eager (as the recipe says)" in lines(used="eager", wanted="eager")
    assert "full precision" in lines() and "paged-adamw-8bit, by bitsandbytes" in lines(optimizer="paged-adamw-8bit")


def test_the_order_of_sums_is_told():
    assert "sums: in a fixed order, so that a resume ends in the same bits; `fixed_order: false`" in lines("cuda")
    assert "sums: in the order of the moment, as the recipe says" in lines("cuda", fixed_order=False)
    assert "in a fixed order all the same: here they have no other" in lines(fixed_order=False)


def test_compiling_is_told_with_its_reason():
    assert "torch.compile: not used, and there is no C++ compiler here (g++" in lines(programs=())
    assert "for it pays late: 1.15 times the steps" in lines(programs=["c++"])
    assert "not measured on CUDA; on a CPU it pays late: 1.15 times the steps" in lines("cuda", programs=())


def test_a_kernel_is_picked_where_it_can_run_and_refused_with_the_reason_where_not():
    flash = pick_attention("auto", "cuda", torch.bfloat16, among(["flash_attn"]))
    assert flash.implementation == "flash_attention_2"
    assert pick_attention("auto", "cpu", torch.bfloat16, among(["flash_attn"])).implementation is None
    assert pick_attention("eager", "cuda", torch.bfloat16, among(["flash_attn"])).implementation == "eager"
    for device, packages, said in (("cpu", ["flash_attn"], "CUDA device"), ("cuda", [], "pip install flash-attn")):
        with pytest.raises(InputError, match=f"attention.*flash_attention_2.*{said}.*`attention: auto`"):
            pick_attention("flash_attention_2", device, torch.bfloat16, among(packages))


@pytest.mark.parametrize("wanted, used", [("auto", "sdpa"), ("sdpa", "sdpa"), ("eager", "eager")])
def test_the_base_is_loaded_with_the_kernel_of_the_recipe(wanted, used, backend, lineage, settings, tmp_path):
    policy = backend.load(lineage, tmp_path, settings(attention=wanted))
    assert policy.model.config._attn_implementation == used


def test_the_log_has_them(backend, lineage, settings, stage, rows, link_type, tmp_path, capsys):
    policy = backend.load(lineage, tmp_path, settings())
    backend.train("sft", policy, rows["sft"], stage(steps=1), link_type(tmp_path / "run"))
    assert "speed-ups: attention: sdpa" in capsys.readouterr().out
