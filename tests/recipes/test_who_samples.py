"""vLLM by name is refused with its line where the recipe or the machine cannot have it, before a run is created."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from engine.runs import create
from recipes.errors import InputError
from recipes.load import load_recipe, parse_recipe

GRPO = """\
  - method: grpo
    data: {source: lab/chains.jsonl}
    verifier: {kind: number}
    generation: vllm
"""
ABLITERATION = """\
  - method: abliteration
    confirm_responsible_use: true
"""


def recipe(stages, more=""):
    return f"name: short\nmodel: lab-nano\n{more}stages:\n{stages}"


def test_a_recipe_that_can_have_it_is_taken_and_auto_is_the_default(tmp_path):
    assert parse_recipe(recipe(GRPO), tmp_path).recipe.stages[0].generation == "vllm"
    plain = recipe(GRPO.replace("    generation: vllm\n", "") + ABLITERATION)
    assert parse_recipe(plain, tmp_path).recipe.stages[0].generation == "auto"
    for word in ("auto", "transformers"):
        edited = recipe(ABLITERATION + GRPO.replace("vllm", word), "quantization: 4bit\n")
        assert parse_recipe(edited, tmp_path).recipe.stages[1].generation == word
    with pytest.raises(InputError, match="generation.*`auto`, `transformers`, `vllm`"):
        parse_recipe(recipe(GRPO.replace("vllm", "vlm")), tmp_path)


@pytest.mark.parametrize("bits", ["8bit", "4bit"])
def test_a_quantized_base_is_named_with_the_line(bits, tmp_path):
    with pytest.raises(
        InputError, match=f"line 8: `stages.0.generation`.*`vllm`, but .* in {bits[0]} bit.*`generation: auto`"
    ):
        parse_recipe(recipe(GRPO, f"quantization: {bits}\n"), tmp_path)


def test_edits_of_an_earlier_stage_are_named_with_the_line(tmp_path):
    with pytest.raises(
        InputError, match="line 9: `stages.1.generation`.*`vllm`, but the lineage's edits.*`generation: auto`"
    ):
        parse_recipe(recipe(ABLITERATION + GRPO), tmp_path)
    assert parse_recipe(recipe(GRPO + ABLITERATION), tmp_path).recipe.stages[0].generation == "vllm"


def test_a_machine_that_has_no_vllm_is_told_before_a_run_is_created(tmp_path, monkeypatch, home):
    (tmp_path / "r.yaml").write_text(recipe(GRPO))
    loaded = load_recipe(str(tmp_path / "r.yaml"))
    with pytest.raises(
        InputError, match="`stages.0.generation`.*`vllm`, which needs a CUDA device.*`generation: auto`"
    ):
        create.create_run(loaded)
    monkeypatch.setattr("engine.forecast.hardware.this_machine", lambda: SimpleNamespace(kind="cuda"))
    monkeypatch.setattr(create.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="`vllm`, which is not installed: `pip install 'trl.vllm.'`"):
        create.create_run(loaded)
    assert not home.exists()


def test_what_the_quantization_comes_to_is_refused_before_a_run_is_created(tmp_path, monkeypatch, home):
    (tmp_path / "r.yaml").write_text(recipe(GRPO))
    loaded = load_recipe(str(tmp_path / "r.yaml"))
    settled = load_recipe(str(tmp_path / "r.yaml")).recipe.model_copy(update={"quantization": "4bit"})
    monkeypatch.setattr(create, "_refuse_missing_vllm", lambda loaded: None)
    monkeypatch.setattr(create, "_settled", lambda loaded: (create.replace(loaded, recipe=settled), ""))
    with pytest.raises(InputError, match="`stages.0.generation`.*in 4 bit"):
        create.create_run(loaded)
    assert not home.exists()
