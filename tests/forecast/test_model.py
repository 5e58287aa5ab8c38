"""Facts of models: the catalogue against published parameter counts, configs of all sorts, names that nobody knows."""

from __future__ import annotations

import json
import struct

import pytest

from engine.forecast.model import GATED, catalogue, find_model, from_config
from recipes.errors import InputError

FIRST_IDS = sorted({entry["ids"][0] for entry in catalogue().values()})


def test_the_catalogue_has_the_models_that_hobbyists_use():
    assert len(FIRST_IDS) >= 40
    sizes = [entry["parameters"] for entry in catalogue().values()]
    assert min(sizes) < 0.2e9 and max(sizes) > 60e9
    assert sum(1 for name in FIRST_IDS if find_model(name).experts) >= 3


@pytest.mark.parametrize("name", FIRST_IDS)
def test_the_parameters_computed_from_the_facts_are_the_published_ones(name):
    entry = catalogue()[name]
    model = from_config(entry["config"], name)
    assert model.parameters == pytest.approx(entry["parameters"], rel=0.015)
    assert model.certain and model.architecture in GATED
    linears = sum(linear.size for linear in model.linears()) * model.layers
    assert linears < model.parameters and model.active_parameters <= model.parameters + model.embedding_parameters


def test_a_name_is_found_whatever_its_case_and_without_its_owner():
    assert find_model("qwen/qwen2.5-7b-instruct").hidden == 3584
    assert find_model("Llama-3.1-8B").parameters == 8_030_261_248


def test_the_lab_model_is_read_from_its_files():
    model = find_model("lab")
    assert model.disk_bytes == pytest.approx(model.parameters * 2, rel=0.01)  # stored in bf16


def test_an_unknown_name_gets_the_nearest_and_a_way_out():
    with pytest.raises(InputError) as caught:
        find_model("meta-llama/Llama-3.1-9B-Instruct")
    problem = caught.value.problems[0]
    assert "Llama-3.1-8B" in str(problem) and "config.json" in problem.accepted


def test_a_config_file_and_a_folder_with_headers_are_enough(tmp_path):
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 100,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    header = json.dumps({"w": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 6]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(6))
    assert find_model(str(tmp_path / "config.json")).layers == 2
    assert find_model(str(tmp_path)).disk_bytes == 6


def test_an_architecture_that_nobody_knows_is_priced_as_a_decoder_and_marked():
    config = {"model_type": "zebra", "n_embd": 768, "n_layer": 12, "n_head": 12, "vocab_size": 50000}
    model = from_config(config, "zebra")
    assert not model.certain and model.intermediate == 4 * 768 and model.parameters > 1e8


@pytest.mark.parametrize("missing", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"])
def test_a_config_without_what_is_needed_is_named(missing):
    config = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100}
    del config[missing]
    with pytest.raises(InputError, match=missing):
        from_config(config, "half a config")


def test_a_config_that_is_no_json_is_bad_input(tmp_path):
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="no JSON"):
        find_model(str(tmp_path))


def test_a_vision_model_counts_its_tower_and_uses_its_text_config():
    text = {
        "model_type": "gemma3_text",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 100,
    }
    model = from_config({"model_type": "gemma3", "text_config": text, "vision_parameters": 1000}, "seer")
    assert model.architecture == "gemma3_text" and model.vision == 1000
