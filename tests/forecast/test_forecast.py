"""The library call: what it gives, how it moves with the settings, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from engine.forecast import forecast
from engine.forecast.arithmetic import memory
from engine.forecast.model import find_model
from engine.forecast.settings import METHODS, from_stage, read_settings
from recipes.errors import InputError
from recipes.load import load_recipe
from tests.bench.bench_forecast import HEADROOM, judged, measured_rows, priced

SMALL = "Qwen/Qwen2.5-0.5B"


def found(method="sft", model=SMALL, hardware="rtx-3090", **run):
    run = {"method": method, "loop": "stage", "batch_size": 2, "length": 512, **run}
    return forecast({"model": model, "run": run, "hardware": hardware, "tier": "arithmetic"})


@pytest.mark.parametrize("backend,hardware", [("pytorch", "rtx-3090"), ("mlx", "m2-ultra-64gb")])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_its_figures_on_both_backends(method, backend, hardware):
    told = found(method, hardware=hardware, backend=backend)
    memory_ = told["memory"]
    assert told["method"] == method and memory_["tier"] == "arithmetic"
    assert memory_["low_mib"] < memory_["process_mib"] < memory_["high_mib"]
    assert sum(memory_["parts"].values()) == pytest.approx(memory_["process_mib"], abs=2)
    assert told["verdict"] == "fits" and told["time_s"]["low"] < told["time_s"]["value"] < told["time_s"]["high"]
    json.dumps(told)


CHEAPER = {
    "checkpointing": ({}, {"gradient_checkpointing": True}),
    "micro-batch": ({"batch_size": 8}, {"batch_size": 1}),
    "length": ({"length": 2048}, {"length": 512}),
    "4bit": ({}, {"quantization": "4bit"}),
    "8bit": ({}, {"quantization": "8bit"}),
    "lora": ({"training": "full"}, {}),
    "attention only": ({"lora_targets": "all-linear"}, {"lora_targets": "attention"}),
    "8-bit optimizer": ({"training": "full", "gradient_checkpointing": True}, {"training": "full", "gradient_checkpointing": True, "optimizer": "adamw-8bit"}),
    "paged optimizer": ({"training": "full", "optimizer": "adamw-8bit", "gradient_checkpointing": True}, {"training": "full", "optimizer": "paged-adamw-8bit", "gradient_checkpointing": True}),
    "sdpa": ({"attention": "eager", "length": 2048}, {"length": 2048}),
    "fused head": ({"loop": "plain"}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CHEAPER)
def test_what_should_need_less_needs_less(name):
    more, less = CHEAPER[name]
    assert found(**less)["memory"]["process_mib"] < found(**more)["memory"]["process_mib"]


def test_the_reference_of_a_full_dpo_is_a_second_model_and_of_a_lora_none():
    full = found("dpo", training="full")["memory"]["parts"]
    assert full["reference"] == pytest.approx(full["weights"])
    assert found("dpo")["memory"]["parts"]["reference"] == 0
    frozen = found("dpo", reference="adapter")["memory"]["parts"]
    assert frozen["reference"] == frozen["adapter"] > 0


@pytest.mark.parametrize("method", ["grpo", "rlvr"])
@pytest.mark.parametrize("weight", [0.0, 0.04])
def test_full_rewarded_stages_count_the_copy_of_their_start(weight, method, tmp_path):
    """Their KL is measured against it, whether or not it is in the loss."""
    path = tmp_path / "full.yaml"
    path.write_text(
        f"name: full\nmodel: lab-nano\nstages:\n  - method: {method}\n    data: {{source: lab/chains.jsonl}}\n"
        f"    steps: 10\n    kl_weight: {weight}\n    training: full\n"
    )
    recipe = load_recipe(str(path)).recipe
    settings = from_stage(recipe, recipe.stages[0], inherited_adapter=False, dtype="fp32", quantization="none")
    assert settings.reference == "copy"
    parts = found(method, training="full")["memory"]["parts"]
    assert parts["reference"] == pytest.approx(parts["weights"])
    assert found(method)["memory"]["parts"]["reference"] == 0


def test_orpo_never_needs_more_than_dpo():
    for training in ("lora", "full"):
        assert (
            found("orpo", training=training)["memory"]["process_mib"]
            <= found("dpo", training=training)["memory"]["process_mib"]
        )


def test_a_longer_completion_or_more_of_them_need_a_larger_cache():
    few = found(
        "grpo",
        batch_size=8,
        max_new_tokens=4096,
        length=4096,
        gradient_checkpointing=True,
        quantization="4bit",
        evaluation_prompts=64,
    )
    many = found(
        "grpo", batch_size=32, max_new_tokens=4096, length=128, gradient_checkpointing=True, quantization="4bit"
    )
    assert many["memory"]["parts"]["kv_cache"] > 0 and many["memory"]["peak"] == "generating"
    assert few["memory"]["parts"]["kv_cache"] < many["memory"]["parts"]["kv_cache"]


def test_what_does_not_fit_comes_with_remedies_and_their_figures():
    told = found("dpo", "meta-llama/Llama-3.1-8B", "rtx-3060-12gb", batch_size=4, length=2048)
    assert told["verdict"] == "does not fit"
    names = [one["name"] for one in told["remedies"]]
    assert {"4-bit", "checkpointing", "micro-batch", "orpo", "shorter"} <= set(names)
    for one in told["remedies"]:
        assert one["process_mib"] < told["memory"]["process_mib"]
    ranked = told["remedies"] if names[-1] != "smaller model" else told["remedies"][:-1]
    order = [("fits", "tight", "does not fit").index(one["verdict"]) for one in ranked]
    assert order == sorted(order) and "smaller model" not in names[:-1]
    assert ranked[0]["verdict"] == "fits" and "make-fit" in names


def test_orpo_is_offered_at_what_a_stage_of_it_takes():
    """In full with the copy that its gauges and gates compare with; through an adapter there is none."""
    for training in ("full", "lora"):
        settings = {"training": training, "loop": "stage", "batch_size": 8, "length": 2048}
        told = found("dpo", "meta-llama/Llama-3.1-8B", "rtx-3060-12gb", **settings)
        offered = next(one for one in told["remedies"] if one["name"] == "orpo")
        itself = found("orpo", "meta-llama/Llama-3.1-8B", "rtx-3060-12gb", **settings)
        assert offered["process_mib"] == itself["memory"]["process_mib"]


def test_other_programs_names_are_understood():
    ours = read_settings(
        {"length": 512, "quantization": "4bit", "dtype": "fp16", "gradient_checkpointing": True, "lora_rank": 8}
    )
    theirs = read_settings(
        {"seq_len": 512, "quantization": "nf4", "precision": "fp16", "grad_checkpoint": True, "lora_r": 8}
    )
    assert ours == theirs
    assert read_settings({"lora_rank": None}).training == "full"


BAD = {
    "group of 1": ({"method": "grpo", "group_size": 1}, "group_size"),
    "too long": ({"length": 100_000}, "32768"),
    "quantized full": ({"training": "full", "quantization": "4bit"}, "quantization"),
    "no batch": ({"batch_size": 0}, "batch_size"),
    "a word": ({"optimizer": "adamw8"}, "adamw-8bit"),
    "a method": ({"method": "dppo"}, "dpo"),
    "unknown": ({"lenght": 5}, "Did you mean `length`"),
    "targets": ({"lora_targets": ["query"]}, "q_proj"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_impossible_settings_are_named(name):
    run, said = BAD[name]
    with pytest.raises(InputError, match=said):
        forecast({"model": SMALL, "run": run, "tier": "arithmetic"})


def test_unknown_hardware_and_keys_get_the_nearest():
    with pytest.raises(InputError, match="rtx-3090"):
        forecast({"model": SMALL, "hardware": "rtx-3091"})
    with pytest.raises(InputError, match="hardware"):
        forecast({"model": SMALL, "hardwar": "t4"})


def test_an_unknown_architecture_is_uncertain_and_has_a_wider_band():
    config = {"hidden_size": 512, "num_hidden_layers": 4, "num_attention_heads": 8, "vocab_size": 1000}
    known = forecast({"model": {**config, "model_type": "llama"}, "hardware": "t4", "tier": "arithmetic"})["memory"]
    told = forecast({"model": {**config, "model_type": "zebra"}, "hardware": "t4", "tier": "arithmetic"})
    assert "uncertain" in told["notes"][0]
    assert told["memory"]["high_mib"] / told["memory"]["low_mib"] > known["high_mib"] / known["low_mib"]


# ---- against what was measured -------------------------------------------------------------------------------------------


def test_the_arithmetic_is_close_to_every_measured_row():
    errors = []
    for row in measured_rows():
        told, measured = priced(row, "arithmetic"), row["measured_mib"]
        for ours, theirs in (("allocated_mib", "peak_allocated_mib"), ("process_mib", "process_mib")):
            error = told[ours] / measured[theirs] - 1
            errors.append(abs(error))
            assert error > -0.12, (row["model_id"], row["run"], ours)
        assert measured["process_mib"] <= told["high_mib"]
        assert judged(row, measured["process_mib"] - 1, "arithmetic") != "fits"
        assert judged(row, measured["process_mib"] * HEADROOM * 0.5, "arithmetic") == "does not fit"
    assert sum(errors) / len(errors) < 0.1


def test_the_arithmetic_takes_less_than_five_milliseconds():
    model, settings = find_model("meta-llama/Llama-3.1-8B"), read_settings({"method": "dpo", "loop": "stage"})
    began = time.process_time()
    for _ in range(200):
        memory(model, settings)
    assert (time.process_time() - began) / 200 < 0.005


def test_the_forecast_imports_no_training_library():
    code = (
        "import sys; from engine.forecast import forecast; "
        "forecast({'model': 'lab', 'run': {'length': 128}, 'hardware': 't4', 'tier': 'arithmetic'}); "
        "print([n for n in ('torch', 'transformers', 'peft', 'trl', 'datasets', 'mlx', 'textual') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr
