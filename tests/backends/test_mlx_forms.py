"""Models as mlx-community publishes them: quantized by MLX already, under MLX's own names and settings."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from engine.backends import open_backend
from recipes.errors import InputError

pytest.importorskip("mlx_lm")


@pytest.fixture
def published(lineage, tmp_path):
    """The base in 4 bits as ``mlx_lm.convert`` writes it."""
    from mlx_lm.utils import load_model, quantize_model, save_config
    from mlx_lm.utils import save_model as save

    source, folder = Path(lineage.base.path), tmp_path / "published"
    model, config = load_model(source)
    model, config = quantize_model(model, config, 32, 4)
    save(folder, model)
    save_config(config, folder / "config.json")
    for path in source.iterdir():
        if path.is_file() and path.suffix != ".safetensors" and path.name != "config.json":
            shutil.copy(path, folder / path.name)
    return replace(lineage, base=replace(lineage.base, path=str(folder)))


def test_a_model_in_mlxs_form_is_the_one_that_is_quantized_on_load(published, lineage, settings, tmp_path):
    backend = open_backend("mlx")
    frozen = settings(training="none", dtype="fp32")
    ready = backend.load(published, tmp_path, frozen)
    converted = backend.load(lineage, tmp_path, replace(frozen, quantization="4bit"))
    prompts, texts = [[{"role": "user", "content": "Tell me about the harbor."}]], ["The harbor is a lovely place."]
    there, here = (policy.score(prompts, texts)[0].logprob for policy in (ready, converted))
    assert there == pytest.approx(here, rel=1e-2)  # the scales were stored in the model's own type
    bench = backend.bench("abliteration", ready)
    assert len(bench.writers) == 2 * len(ready.network.layers) and not bench.without_rows()
    with pytest.raises(InputError, match="`full` on a quantized base.*`lora`"):
        backend.load(published, tmp_path, settings(training="full"))
    with pytest.raises(InputError, match="quantized by MLX.*backend: mlx"):
        open_backend("pytorch").load(published, tmp_path, frozen)
