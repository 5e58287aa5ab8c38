"""Who samples the completions of GRPO and RLVR: the choice, what follows from it, and that vLLM leaves the base alone.

vLLM itself needs a GPU; a little engine stands in its place, and TRL's own code talks to it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from trl import GRPOConfig

from engine.backends.pytorch import generation
from engine.backends.pytorch.generation import GIB, Facts, pick_generation
from engine.backends.pytorch.grpo import grpo_arguments
from engine.backends.pytorch.training import training_arguments
from recipes.errors import InputError
from tests.backends.conftest import Vowels, questions
from tests.backends.little_vllm import LittleVLLM, in_its_place

CAN = Facts("cuda", installed=True, edited=False, quantization="none", weights=6 * GIB, free=12 * GIB, memory=24 * GIB)
CANNOT = [
    ({"device": "cpu"}, "vLLM needs a CUDA device"),
    ({"device": "mps"}, "vLLM needs a CUDA device"),
    ({"installed": False}, "vLLM is not installed"),
    ({"edited": True}, "without them"),
    ({"quantization": "8bit"}, "a base in 8 bit"),
    ({"quantization": "4bit"}, "a base in 4 bit"),
    ({"weights": 15 * GIB}, r"the weights \(15.0 GiB\) fill the 7.2 GiB"),
    ({"free": 5 * GIB}, r"5.0 GiB of the GPU are free, less than the 7.2 GiB"),
]


def test_vllm_samples_where_it_can_and_is_not_refused():
    assert pick_generation("auto", CAN).vllm and pick_generation("auto", CAN).why == "it is installed"
    assert pick_generation("vllm", CAN).vllm and pick_generation("vllm", CAN).why == "as the recipe says"
    assert pick_generation("transformers", CAN) == generation.Generation(False, "as the recipe says")
    assert pick_generation("auto", replace(CAN, weights=0, free=None, memory=None)).vllm  # nothing is known of the GPU


@pytest.mark.parametrize("changes, why", CANNOT)
def test_where_vllm_cannot_sample_transformers_does_or_the_recipe_is_refused(changes, why):
    facts = replace(CAN, **changes)
    picked = pick_generation("auto", facts)
    assert not picked.vllm and re.search(why, picked.why)
    assert not pick_generation("transformers", facts).vllm
    with pytest.raises(InputError, match=f"`generation`.*`vllm`, but .*{why}.*`generation: auto` or `transformers`"):
        pick_generation("vllm", facts)


@pytest.fixture
def facts(monkeypatch):
    """What is found of the machine and the policy."""
    found = []
    monkeypatch.setattr(generation, "facts_of", lambda policy, has: found[-1])
    return found


@pytest.mark.parametrize("wanted", ["auto", "vllm", "transformers"])
def test_the_trainers_arguments_follow_the_choice(wanted, facts, backend, lineage, settings, group_stage, tmp_path):
    facts.append(CAN)
    policy = backend.load(lineage, tmp_path, settings())
    stage = group_stage(generation=wanted)
    config = GRPOConfig(**training_arguments(stage, policy, tmp_path), **grpo_arguments(stage, policy))
    assert config.use_vllm is (wanted != "transformers")
    if config.use_vllm:
        assert (config.vllm_mode, config.vllm_max_model_length) == ("colocate", stage.max_length)
        longer = grpo_arguments(group_stage(max_length=10**6), policy)
        assert longer["vllm_max_model_length"] == policy.model.config.max_position_embeddings


def test_what_is_found_of_a_policy(backend, lineage, settings, group_stage, tmp_path):
    policy = backend.load(lineage, tmp_path, settings())
    assert generation.facts_of(policy, lambda name: name) == Facts("cpu", True, False, "none")
    assert not generation.facts_of(policy, lambda name: None).installed
    policy.interventions.lineage.append(SimpleNamespace())
    assert generation.facts_of(policy, lambda name: name).edited
    assert "use_vllm" in (given := grpo_arguments(group_stage(), policy)) and not given["use_vllm"]
    assert not any(name.startswith("vllm") or name == "trust_remote_code" for name in given)


def test_vllm_by_name_is_refused_before_anything_is_trained(
    backend, lineage, settings, group_stage, link_type, tmp_path
):
    policy = backend.load(lineage, tmp_path, settings())
    rows = SimpleNamespace(questions=questions(8), verifier=Vowels())
    link = link_type(tmp_path / "run")
    with pytest.raises(InputError, match="vLLM needs a CUDA device"):
        backend.train("grpo", policy, rows, group_stage(generation="vllm"), link)
    assert not link.steps


@pytest.mark.parametrize("method, changes", [("grpo", {}), ("rlvr", {"kl_weight": 0.1, "num_iterations": 2})])
def test_vllm_samples_from_the_weights_that_train_and_leaves_the_base_as_it_was(
    method, changes, facts, backend, lineage, settings, group_stage, link_type, tmp_path, monkeypatch
):
    facts.append(CAN)
    told = []

    class Probed(link_type):
        def measured_longest(self, *figures):
            told.append(figures)

    policy = backend.load(lineage, tmp_path, settings(dtype="bf16"))
    base = {name: value.clone() for name, value in policy.model.named_parameters() if "lora_" not in name}
    link = Probed(tmp_path / "run", every=10)
    rows = SimpleNamespace(questions=questions(24), verifier=Vowels())
    with in_its_place(monkeypatch):
        backend.train(method, policy, rows, group_stage(steps=4, learning_rate=1e-2, **changes), link)
    engine = LittleVLLM.latest
    assert len(link.steps) == 4 and len(told) == 1
    # The probe hands the weights over and lets every completion grow to the limit; then each generation does.
    limits = [getattr(one, "ignore_eos", False) for one in engine.asked]
    assert limits == [True] + [False] * (4 // changes.get("num_iterations", 1))
    assert engine.handed == list(engine.weights) * len(limits)
    assert engine.settings["max_model_len"] == 96 and engine.settings["gpu_memory_utilization"] == generation.SHARE
    # The base's bits are what they were; the weights that vLLM last got are not the base's.
    now = dict(policy.model.named_parameters())
    assert all(torch.equal(value, now[name]) for name, value in base.items())
    layer = "model.layers.0.self_attn.q_proj"
    given = engine.weights[f"{layer}.weight"]
    assert not torch.equal(given, base[f"base_model.model.{layer}.base_layer.weight"].float())
