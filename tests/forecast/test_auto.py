"""``quantization: auto`` is the forecast's word, settled once when a run begins."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.forecast.auto import pick_quantization
from engine.forecast.hardware import find_hardware
from engine.forecast.model import find_model
from engine.forecast.of_stages import settings_of_stages
from engine.forecast.verdict import estimate
from engine.runs.create import create_run
from recipes.load import load_recipe

SFT = """\
name: mine
model: {model}
quantization: {quantization}
stages:
  - method: sft
    data: {{source: lab/domain.jsonl}}
    batch_size: 1
    max_length: {length}
    training: {training}
"""


def recipe(tmp_path, model="lab-nano", training="lora", quantization="auto", length=512):
    path = tmp_path / "mine.yaml"
    path.write_text(SFT.format(model=model, training=training, quantization=quantization, length=length))
    return load_recipe(str(path))


@pytest.mark.parametrize(
    ("settings", "machine", "value", "word"),
    [
        ({"model": "meta-llama/Llama-3.1-8B"}, "rtx-3090", "4bit", "4 bit, since unquantized"),
        ({"model": "meta-llama/Llama-3.2-1B"}, "rtx-3090", "none", "unquantized, which fits"),
        ({"model": "meta-llama/Llama-3.1-8B", "training": "full"}, "rtx-3090", "none", "trains all weights"),
        ({"model": "meta-llama/Llama-3.1-8B", "quantization": "8bit"}, "rtx-3090", "8bit", ""),
        ({"model": "nobody/knows-it"}, "rtx-3090", "none", "not known yet"),
        ({"model": "lab"}, "m2-ultra-64gb", "none", "unquantized, which fits"),
    ],
)
def test_auto_is_what_the_forecast_says(tmp_path, settings, machine, value, word):
    picked = pick_quantization(recipe(tmp_path, **settings), find_hardware(machine))
    assert picked.value == value and word in picked.why
    assert bool(picked.why) == (settings.get("quantization") is None)


def test_a_run_keeps_what_auto_came_to_and_says_so(tmp_path, monkeypatch):
    """On a card that has just what 4 bit needs, and less than 16 bit does."""
    loaded, card = recipe(tmp_path, model="lab", length=64), find_hardware("rtx-3090")
    model = find_model("lab", tmp_path)
    needs = {
        value: estimate(model, settings_of_stages(loaded, model, card, value)[0], card).high
        for value in ("none", "4bit")
    }
    assert needs["4bit"] < needs["none"]
    small = replace(card, available_mib=needs["4bit"])
    monkeypatch.setattr("engine.forecast.hardware.this_machine", lambda: small)
    run = create_run(loaded).run
    picked = pick_quantization(loaded, small)
    assert load_recipe(str(run.recipe)).recipe.quantization == picked.value == "4bit"
    assert [alert.text for alert in run.state().alerts if alert.code == "quantization"] == [
        f"quantization {picked.why}"
    ]


def test_a_run_that_waits_for_the_device_counts_with_all_of_it(tmp_path, monkeypatch):
    card = find_hardware("rtx-3090")
    monkeypatch.setattr("engine.forecast.hardware.this_machine", lambda: replace(card, available_mib=10.0))
    monkeypatch.setattr("engine.runs.queue.DeviceQueue.taken", lambda self: True)
    run = create_run(recipe(tmp_path)).run
    assert load_recipe(str(run.recipe)).recipe.quantization == "none"
