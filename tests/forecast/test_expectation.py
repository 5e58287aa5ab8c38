"""What a stage writes into the log before it begins: every method of the library has a forecast on the lab's models."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.forecast.launch import expectation
from recipes.load import library, load_recipe

LAB = Path(__file__).resolve().parents[2] / "assets" / "lab" / "model"


@pytest.mark.parametrize("name", sorted(library()))
def test_every_stage_of_the_library_is_foretold(name):
    loaded = load_recipe(name)
    for index, stage in enumerate(loaded.recipe.stages):
        found = expectation(loaded, stage, index, LAB)
        memory, time = found["memory"], found["time_s"]
        assert 0 < memory["low_mib"] < memory["high_mib"] < 100_000, stage.method
        assert 0 < time["low"] <= time["value"] <= time["high"], stage.method


def test_a_base_without_a_config_has_no_forecast(tmp_path):
    loaded = load_recipe("sft")
    assert expectation(loaded, loaded.recipe.stages[0], 0, tmp_path) is None
