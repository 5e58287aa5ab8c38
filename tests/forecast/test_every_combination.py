"""Every method, backend, precision, adapter, kernel, optimizer and number of GPUs gets a forecast that makes sense."""

from __future__ import annotations

import itertools
import json
import random

import pytest

from engine.forecast import forecast
from engine.forecast.settings import METHODS
from recipes.errors import InputError

CHOICES = {
    "backend": ["pytorch", "mlx"], "quantization": ["none", "8bit", "4bit"], "training": ["lora", "full"],
    "lora_targets": ["all-linear", "attention", ["q_proj", "v_proj"]], "gradient_checkpointing": [False, True],
    "attention": ["sdpa", "eager"], "optimizer": ["adamw", "adamw-8bit", "paged-adamw-8bit", "sgd", "sgd-momentum"],
    "batch_size": [1, 4], "length": [256, 2048], "group_size": [2, 8], "gpus": [1, 4], "dtype": ["bf16", "fp32"],
    "loop": ["stage", "plain"], "accumulation": [1, 4], "evaluation_prompts": [0, 200],
}  # fmt: skip
MODELS = ["meta-llama/Llama-3.1-8B", "Qwen/Qwen3-0.6B", "google/gemma-3-1b-it", "lab-nano"]
SAMPLED = 40
"""Combinations a method, drawn from a fixed seed; the whole product would be millions."""


def combinations(method):
    drawn = random.Random(method)
    for place in range(SAMPLED):
        run = {name: drawn.choice(values) for name, values in CHOICES.items()}
        if run["training"] == "full":
            run["quantization"] = "none"
        if MODELS[place % len(MODELS)] == "lab-nano":
            run["length"] = 256
        yield MODELS[place % len(MODELS)], {"method": method, **run}


@pytest.mark.parametrize("method", METHODS)
def test_every_combination_gets_a_forecast(method):
    for model, run in combinations(method):
        machine = "m2-ultra-64gb" if run["backend"] == "mlx" else "rtx-3090"
        told = forecast({"model": model, "run": run, "hardware": machine, "tier": "arithmetic"})
        memory, time_s = told["memory"], told["time_s"]
        assert 0 < memory["allocated_mib"] <= memory["reserved_mib"] <= memory["process_mib"], run
        assert memory["low_mib"] <= memory["process_mib"] <= memory["high_mib"], run
        assert sum(memory["parts"].values()) == pytest.approx(memory["process_mib"], abs=1), run
        assert min(memory["parts"].values()) >= 0, run
        assert 0 < time_s["low"] <= time_s["value"] <= time_s["high"], run
        assert told["verdict"] in ("fits", "tight", "does not fit") and json.dumps(told)
        assert (told["verdict"] == "fits") == (memory["high_mib"] <= told["available_mib"])
        if run["gpus"] > 1:
            shared = f"the {run['gpus']} processes share this memory" if run["backend"] == "mlx" else "GPUs"
            shared = "one process" if method in ("abliteration", "steering", "calibration") else shared
            assert any(shared in note for note in told["notes"])


def test_what_needs_less_is_never_said_to_need_more():
    """Of two settings that differ in one thing, for SFT and DPO on PyTorch and MLX."""
    less = [
        ("quantization", "4bit", "none"), ("gradient_checkpointing", True, False), ("batch_size", 1, 4), ("length", 512, 2048),
        ("lora_targets", ["q_proj", "v_proj"], "all-linear"), ("lora_rank", 8, 64), ("method", "sft", "dpo"),
    ]  # fmt: skip
    for (name, small, large), backend, method in itertools.product(less, ("pytorch", "mlx"), ("sft", "dpo")):
        run = {"loop": "stage", "method": method, "backend": backend, "length": 1024, "batch_size": 2}
        needs = [
            forecast({"model": MODELS[0], "run": {**run, name: value}, "tier": "arithmetic"})["memory"]["process_mib"]
            for value in (small, large)
        ]
        assert needs[0] <= needs[1], (name, backend, method)


@pytest.mark.parametrize("method", ["grpo", "rlvr"])
def test_a_group_of_one_is_named(method):
    with pytest.raises(InputError) as raised:
        forecast({"model": "lab", "run": {"method": method, "group_size": 1}})
    assert "group_size" in str(raised.value) and "at least 2" in str(raised.value)


def test_processes_on_one_device_need_its_memory_and_time_each():
    """On a Mac and on a CPU they share it; GPUs are one for each process."""
    for machine, times in (
        ("m2-ultra-64gb", 3),
        ({"name": "a CPU", "kind": "cpu", "memory_mib": 32000}, 3),
        ("rtx-3090", 1),
    ):
        run = {
            "loop": "stage",
            "method": "sft",
            "backend": "mlx" if machine == "m2-ultra-64gb" else "pytorch",
            "length": 512,
        }
        one, three = (
            forecast({"model": MODELS[0], "run": {**run, "gpus": count}, "hardware": machine, "tier": "arithmetic"})
            for count in (1, 3)
        )
        assert three["memory"]["process_mib"] == pytest.approx(times * one["memory"]["process_mib"], rel=1e-3)
        assert (three["time_s"]["step_s"] > 2 * one["time_s"]["step_s"]) == (times > 1)
