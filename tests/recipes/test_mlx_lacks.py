"""What MLX does not have is named with its line and the nearest equivalent, before a run is created."""

from __future__ import annotations

import pytest

from recipes.errors import InputError
from recipes.load import load_recipe

RECIPE = """\
name: short
model: lab-nano
{more}
stages:
  - method: sft
    data: {{source: lab/domain.jsonl}}
    {stage}
"""


def loaded(tmp_path, more="", stage="steps: 4", overrides=()):
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE.format(more=more, stage=stage))
    return load_recipe(str(path), list(overrides)).recipe


@pytest.mark.parametrize("optimizer", ["adamw-8bit", "paged-adamw-8bit"])
def test_a_bitsandbytes_optimizer_is_named_with_the_nearest(optimizer, tmp_path):
    with pytest.raises(InputError, match=f"line 7: `stages.0.optimizer`.*`{optimizer}`.*bitsandbytes.*`adamw`"):
        loaded(tmp_path, "backend: mlx", f"optimizer: {optimizer}")
    with pytest.raises(InputError, match="bitsandbytes"):
        loaded(tmp_path, "", f"optimizer: {optimizer}", ["backend=mlx"])
    with pytest.raises(InputError, match="bitsandbytes"):
        loaded(tmp_path, "", f"optimizer: {optimizer}", ["stages.0.backend=mlx"])
    assert loaded(tmp_path, "backend: pytorch", f"optimizer: {optimizer}").stages[0].optimizer == optimizer


STUDIED = "steps: 4\n  - method: calibration\n    data: {source: lab/questions.jsonl}"
PAIRS = f"{STUDIED}\n  - method: dpo\n    data: {{source: lab/preferences.jsonl}}"


def test_several_processes_train_sft_and_other_methods_are_named(tmp_path):
    assert loaded(tmp_path, "backend: mlx\nprocesses: 2", STUDIED).processes == 2
    with pytest.raises(InputError) as raised:
        loaded(tmp_path, "backend: mlx\nprocesses: 2", PAIRS)
    said = str(raised.value)
    assert "line 4: `processes`" in said and "`2` with MLX in stage 3 (dpo)" in said
    assert "accumulation" in said and "`backend: pytorch` for this stage" in said and "SFT" in said
    assert loaded(tmp_path, "processes: 2", PAIRS).processes == 2
    assert loaded(tmp_path, "backend: mlx\nprocesses: 2", PAIRS + "\n    backend: pytorch").processes == 2


def test_what_auto_comes_to_is_refused_before_a_run_is_created(tmp_path, monkeypatch):
    from engine.runs import create

    monkeypatch.setenv("FINETUNE_TUI_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(create, "resolve", lambda name: "mlx")  # as on a Mac
    loaded(tmp_path, "processes: 2", PAIRS)
    with pytest.raises(InputError, match="stage 3 .dpo."):
        create.create_run(load_recipe(str(tmp_path / "r.yaml")))
    loaded(tmp_path, "fixed_order: false")
    with pytest.raises(InputError, match="`fixed_order`.*`false` with MLX"):
        create.create_run(load_recipe(str(tmp_path / "r.yaml")))
    assert not (tmp_path / "home").exists()


def test_padding_free_and_the_kernels_of_pytorch_are_named(tmp_path):
    with pytest.raises(InputError, match="line 7: `stages.0.padding_free`.*`true` with MLX.*`false`"):
        loaded(tmp_path, "backend: mlx", "padding_free: true")
    with pytest.raises(InputError, match="line 3: `attention`.*`sdpa`.*PyTorch's.*`attention: auto`"):
        loaded(tmp_path, "attention: sdpa", overrides=["backend=mlx"])
    with pytest.raises(InputError, match="line 3: `fixed_order`.*`false`.*no other order.*`fixed_order: true`"):
        loaded(tmp_path, "fixed_order: false", overrides=["backend=mlx"])
    kept = loaded(tmp_path, "backend: pytorch\nattention: sdpa", "padding_free: true")
    assert kept.attention == "sdpa" and kept.stages[0].padding_free and loaded(tmp_path).attention == "auto"


GROUPS = (
    "steps: 4\n  - method: grpo\n    data: {source: lab/chains.jsonl}\n    verifier: {kind: number}\n    generation: %s"
)


@pytest.mark.parametrize("generation", ["vllm", "transformers"])
def test_who_samples_is_pytorchs(generation, tmp_path):
    with pytest.raises(
        InputError, match=f"line 11: `stages.1.generation`.*`{generation}` with MLX.*`generation: auto`"
    ):
        loaded(tmp_path, "backend: mlx", GROUPS % generation)
    assert loaded(tmp_path, "backend: pytorch", GROUPS % generation).stages[1].generation == generation
    assert loaded(tmp_path, "backend: mlx", GROUPS % "auto").stages[1].generation == "auto"
