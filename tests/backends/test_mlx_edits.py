"""Edits and vectors on MLX are PyTorch's: the same directions, the same edited logits, the same files, taken off to the byte."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.backends import open_backend
from engine.interventions.edits import norm_edit, plain_edit, save_edits
from engine.interventions.vectors import Condition, Vector, save_vector
from recipes.errors import InputError

mx = pytest.importorskip("mlx.core")
pytest.importorskip("mlx_lm")

OUT = "model.layers.1.mlp.down_proj"
FORBIDDEN = [[{"role": "user", "content": f"How do I {verb} the lamp?"}] for verb in ("sink", "steal", "burn")]
HARMLESS = [[{"role": "user", "content": f"Tell me how to {verb} the old wooden table."}] for verb in ("mend", "dust")]
PROMPTS = [
    [{"role": "user", "content": "Tell me about the harbor."}],
    [{"role": "user", "content": "How do I clean the old bucket, please?"}],
]
TEXTS = ["The harbor is a lovely place.", "With soap."]
TRIAL = {"depth": 0.4, "position": -1} | {
    f"{part}.{name}": value
    for part in ("attention", "mlp")
    for name, value in {"weight": 0.9, "peak": 0.6, "width": 0.8}.items()
}
CANDIDATE = {"persona": "warm", "source": "told", "depth": 0.5, "form": "pca", "window": None, "strength": 0.8}


def direction(width=96, seed=0):
    draw = np.random.default_rng(seed).standard_normal(width)
    return draw / np.linalg.norm(draw)


@pytest.fixture
def both(lineage, settings, tmp_path):
    """The same frozen model on either backend."""
    frozen = settings(training="none", dtype="fp32")
    return {name: open_backend(name).load(lineage, tmp_path, frozen) for name in ("pytorch", "mlx")}


def scores(policy, of="policy"):
    return [score.logprob for score in policy.score(PROMPTS, TEXTS, of=of)]


def entry(path, strength):
    return {"path": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "strength": strength}


@pytest.mark.parametrize("form", ["plain", "norm"])
def test_the_same_directions_and_the_same_edited_logits(form, both, tmp_path):
    benches = {name: open_backend(name).bench("abliteration", policy) for name, policy in both.items()}
    before = {name: scores(policy) for name, policy in both.items()}
    for name, bench in benches.items():
        bench.extract(FORBIDDEN, HARMLESS, 3, True, tmp_path / f"{name}.safetensors")
        assert bench.apply(TRIAL | {"form": form}, 1.0) == 2 * bench.depth
    ours, theirs = benches["mlx"], benches["pytorch"]
    assert ours.directions.dtype == np.float64 and ours.directions.shape == theirs.directions.shape
    assert np.allclose(ours.directions, theirs.directions, atol=1e-4)
    assert ours.writers == theirs.writers
    for mine, other in zip(ours.edits(TRIAL | {"form": form}), theirs.edits(TRIAL | {"form": form}), strict=True):
        assert (mine.module, mine.weight) == (other.module, other.weight)
        assert all(np.allclose(getattr(mine, name), getattr(other, name), atol=1e-4) for name in "uwab")
    edited = {name: scores(policy) for name, policy in both.items()}
    assert edited["mlx"] == pytest.approx(edited["pytorch"], rel=1e-4)
    assert abs(edited["mlx"][0] - before["mlx"][0]) > 0.05
    answers = both["pytorch"].generate(PROMPTS, max_new_tokens=8, temperature=0.0, seed=0)
    kls = {name: [one.total for one in p.divergence(PROMPTS, answers, to="start")] for name, p in both.items()}
    assert kls["mlx"] == pytest.approx(kls["pytorch"], rel=1e-3) and min(kls["mlx"]) > 1e-3
    assert both["mlx"].generate(PROMPTS, max_new_tokens=8, temperature=0.0, seed=0) == answers


def test_undone_is_byte_identical_and_the_start_is_without_it(both):
    policy = both["mlx"]
    bench = open_backend("mlx").bench("abliteration", policy)
    kinds = {type(module) for _, module in policy.network.model.named_modules()}
    before = scores(policy)
    bench.hang([plain_edit(OUT, direction(), 1.0)], 1.0)
    edited = scores(policy)
    assert edited != before and scores(policy, "start") == before == scores(policy, "base")
    assert scores(policy) == edited, "looking at the start must not switch the edit off"
    policy.interventions.stage[0].strength = 0.0
    assert scores(policy) == before
    policy.interventions.replace()
    assert scores(policy) == before
    assert {type(module) for _, module in policy.network.model.named_modules()} == kinds


@pytest.mark.parametrize("quantization", ["none", "4bit"])
def test_the_norm_form_is_exact_on_an_adapter_and_on_a_quantized_base(quantization, lineage, settings, tmp_path):
    from engine.backends.mlx.adapters import module_at
    from engine.backends.mlx.edits import applied, effective_weight, row_products

    policy = open_backend("mlx").load(lineage, tmp_path, settings(quantization=quantization))
    module = module_at(policy.network.model, OUT)
    module.lora_b = mx.random.normal(module.lora_b.shape, key=mx.random.key(1))  # as if it had been trained
    matrix = effective_weight(module)
    inputs = mx.random.normal((5, matrix.shape[1]))
    output = module(inputs)
    assert np.allclose(np.array(output), np.array(inputs @ matrix.T), atol=1e-4), "not the matrix that it applies"
    edit = norm_edit(OUT, direction(), 0.8, row_products(matrix, direction()))
    wide, unit = np.array(matrix).astype(np.float64), direction()
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    turned = wide / norms - 0.8 * np.outer(unit, unit @ (wide / norms))
    wanted = np.array(inputs) @ (norms * turned / np.linalg.norm(turned, axis=1, keepdims=True)).T
    assert np.allclose(np.array(applied(edit, output, 1.0)), wanted, atol=2e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("window", [None, 2])
def test_vectors_steer_as_on_pytorch(window, both, tmp_path):
    """Read off the same contrasts, and the same greedy replies and scores; the prompt is left alone on both."""
    positive = [(PROMPTS[0], "Oh, I love the harbor!"), (PROMPTS[1], "Come and see it with me soon.")]
    negative = [(PROMPTS[0], "The harbor serves a public purpose."), (PROMPTS[1], "No further comment is required.")]
    found = {}
    for name, policy in both.items():
        bench = open_backend(name).bench("steering", policy)
        bench.extract("warm", "told", positive, negative, tmp_path / f"{name}.safetensors", None)
        bench.extract_condition("warm", FORBIDDEN, HARMLESS, tmp_path / f"{name}-condition.safetensors")
        bench.apply([CANDIDATE | {"window": window}])
        found[name] = bench.vector(CANDIDATE)
    assert np.allclose(found["mlx"].direction, found["pytorch"].direction, atol=1e-4)
    assert found["mlx"].calibrated == pytest.approx(found["pytorch"].calibrated, rel=1e-4)
    assert found["mlx"].condition.threshold == pytest.approx(found["pytorch"].condition.threshold, rel=1e-4)
    # No condition here: it may lie so near its threshold that the last bit decides.
    sets = {name: policy.interventions.vectors[0] for name, policy in both.items()}
    for one in sets.values():
        one.vectors[0].condition = None
    torch_hooks = sets["pytorch"]
    assert torch_hooks.vectors[0].window == window
    for strength in (1.0, 0.0):
        for one in sets.values():
            one.vectors[0].strength = strength
        replies = {name: p.generate(PROMPTS, max_new_tokens=8, temperature=0.0, seed=0) for name, p in both.items()}
        told = {name: scores(policy) for name, policy in both.items()}
        if strength:
            assert told["mlx"] != pytest.approx(scores(both["mlx"], "start"), rel=1e-3)
        assert told["mlx"] == pytest.approx(told["pytorch"], rel=1e-4)
        assert replies["mlx"] == replies["pytorch"]


def test_generation_steers_as_teacher_forcing_and_a_condition_decides_for_each_prompt(both):
    from engine.backends.mlx.directions import prompt_means
    from engine.backends.mlx.vectors import VectorSet

    policy = both["mlx"]
    means = [prompt_means(policy, [prompt], 1)[0, 0] for prompt in PROMPTS]
    along = (means[0] - means[1]) / np.linalg.norm(means[0] - means[1])
    condition = Condition(0, along.astype(np.float32), float(along @ (means[0] + means[1]) / 2))
    vector = Vector("v", 0, direction().astype(np.float32), 150.0)
    alone = policy.generate(PROMPTS, max_new_tokens=8, temperature=0.0, seed=0)
    policy.interventions.replace(VectorSet(policy.network, [vector]))
    steered = policy.generate(PROMPTS, max_new_tokens=8, temperature=0.0, seed=0)
    assert [one.tokens for one in steered] != [one.tokens for one in alone]
    for prompt, one in zip(PROMPTS, steered, strict=True):  # every token is the argmax of one teacher-forced pass
        assert policy.score([prompt], [one.text])[0].correct >= len(one.tokens)
    conditional = VectorSet(policy.network, [replace(vector, condition=condition, fired=[])])
    policy.interventions.replace()
    policy.interventions.replace(conditional)
    chosen = policy.generate(PROMPTS, max_new_tokens=8, temperature=0.0, seed=0)
    assert sorted(np.concatenate([np.array(rows) for rows in conditional.vectors[0].fired]).tolist()) == [False, True]
    assert chosen[0] == steered[0] != alone[0] and chosen[1] == alone[1] != steered[1]
    measured = policy.divergence(PROMPTS, chosen, to="start")
    assert measured[0].total > 0 and measured[1].total == 0


def test_a_lineage_crosses_backends_with_its_edits_and_vectors(both, lineage, settings, tmp_path):
    """The files of one backend act on the other as they do on their own; changed ones and other models' are refused."""
    edits = [plain_edit(OUT, direction(), 0.7), plain_edit("model.layers.0.self_attn.o_proj", direction(seed=3), 0.9)]
    save_edits(edits, tmp_path / "edits.safetensors", {"base": "lab-nano"})
    save_vector(Vector("v", 1, direction(seed=4).astype(np.float32), 60.0, window=3), tmp_path / "v.safetensors", {})
    carried = replace(
        lineage, edits=[entry(tmp_path / "edits.safetensors", 0.5)], vectors=[entry(tmp_path / "v.safetensors", 0.5)]
    )
    found = {}
    for name, plain in both.items():
        for training in ("none", "lora", "full"):
            policy = open_backend(name).load(carried, tmp_path, settings(training=training, dtype="fp32"))
            found[name, training] = scores(policy)
            if training != "full":
                assert scores(policy, "start") == pytest.approx(found[name, training], abs=1e-4)
                assert scores(policy, "base") == pytest.approx(scores(plain), abs=1e-4)
    assert all(one == pytest.approx(found["pytorch", "none"], rel=1e-4) for one in found.values())
    assert found["mlx", "none"] != pytest.approx(scores(both["mlx"]), rel=1e-3)
    save_edits([plain_edit("model.layers.9.mlp.down_proj", direction(), 1.0)], tmp_path / "edits.safetensors", {})
    with pytest.raises(InputError, match="changed"):
        open_backend("mlx").load(carried, tmp_path, settings(training="none"))
    other = replace(carried, edits=[entry(tmp_path / "edits.safetensors", 0.5)])
    with pytest.raises(InputError, match="layers.9.*not there"):
        open_backend("mlx").load(other, tmp_path, settings(training="none"))
    save_vector(Vector("narrow", 0, np.ones(7, np.float32), 1.0), tmp_path / "v.safetensors", {})
    narrow = replace(lineage, vectors=[entry(tmp_path / "v.safetensors", 1.0)])
    with pytest.raises(InputError, match="width 7.*another model"):
        open_backend("mlx").load(narrow, tmp_path, settings(training="none"))


def test_training_on_an_edited_model_is_the_same_on_both(lineage, settings, stage, rows, link_type, tmp_path):
    """With checkpointing, which computes the edited layers again."""
    save_edits([plain_edit(OUT, direction(), 1.0)], tmp_path / "edits.safetensors", {})
    edited = replace(lineage, edits=[entry(tmp_path / "edits.safetensors", 1.0)])
    losses = {}
    for name in ("pytorch", "mlx"):
        backend = open_backend(name)
        policy = backend.load(edited, tmp_path, settings(dtype="fp32", gradient_checkpointing=True))
        link = link_type(tmp_path / f"{name}", every=1000)
        backend.train("dpo", policy, rows["dpo"], stage(steps=4, gradient_checkpointing=True), link)
        losses[name] = link.losses()
    assert losses["mlx"] == pytest.approx(losses["pytorch"], rel=1e-3)
    assert losses["mlx"][4] < losses["mlx"][1]


def test_a_hook_counts_as_no_parameter_and_torch_is_no_part_of_it(both):
    policy = both["mlx"]
    before = set(dict(policy.network.model.parameters()))
    open_backend("mlx").bench("abliteration", policy).hang([plain_edit(OUT, direction(), 1.0)], 1.0)
    assert set(dict(policy.network.model.parameters())) == before
    assert not isinstance(policy.interventions.stage[0].edits[0].u, torch.Tensor)
