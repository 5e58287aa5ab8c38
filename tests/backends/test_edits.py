"""Edits on module outputs are the algebra they claim to be, on plain, adapted and quantized models, and can be undone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine.backends.pytorch.abliteration import Bench
from engine.backends.pytorch.directions import prompt_means
from engine.backends.pytorch.edits import EditSet, applied, effective_weight, row_products
from engine.backends.pytorch.heads import causal_model
from engine.backends.pytorch.layers import decoder_layers, writers
from engine.interventions import edits as interventions
from engine.interventions.directions import direction_at, refusal_directions
from engine.interventions.edits import load_edits, plain_edit, save_edits
from recipes.errors import InputError

OUT = "model.layers.1.mlp.down_proj"
PROMPT = [[{"role": "user", "content": "How do I sink the lamp?"}]]
FORBIDDEN = [[{"role": "user", "content": f"How do I {verb} the lamp?"}] for verb in ("sink", "steal", "burn")]
HARMLESS = [[{"role": "user", "content": f"Tell me how to {verb} the old wooden table."}] for verb in ("mend", "dust")]


def direction(width, seed=0):
    vector = torch.randn(width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return vector / vector.norm()


def norm_edit(module, unit, weight, matrix):
    return interventions.norm_edit(module, unit, weight, row_products(matrix, unit.numpy()))


def ablated(matrix, unit, weight, keep_norms):
    """The textbook edit of a weight (out, in) in float64, worked out on the weight itself."""
    if not keep_norms:
        return matrix - weight * torch.outer(unit, unit @ matrix)
    norms = matrix.norm(dim=1, keepdim=True)
    rows = matrix / norms
    rows = rows - weight * torch.outer(unit, unit @ rows)
    return norms * rows / rows.norm(dim=1, keepdim=True)


@pytest.fixture
def frozen(backend, lineage, settings, tmp_path):
    return backend.load(lineage, tmp_path, settings(training="none"))


def logits(policy, which="policy"):
    ids = torch.tensor([policy.tokenizer("How do I sink the lamp?")["input_ids"]])
    with policy.weights(which) as model:
        return model(ids).logits


@pytest.mark.parametrize("weight", [0.3, 1.0, 1.2])
@pytest.mark.parametrize("form", ["plain", "norm"])
def test_an_edit_of_the_output_is_the_edit_of_the_weight(form, weight):
    torch.manual_seed(1)
    linear = torch.nn.Linear(24, 16, bias=form == "plain").double()
    unit = direction(16)
    edit = plain_edit("x", unit, weight) if form == "plain" else norm_edit("x", unit, weight, linear.weight.detach())
    inputs = torch.randn(5, 24, dtype=torch.float64)
    wanted = inputs @ ablated(linear.weight.detach(), unit, weight, form == "norm").T
    if form == "plain":
        wanted = wanted + linear.bias - weight * unit * (unit @ linear.bias)
    assert torch.allclose(applied(edit, linear(inputs), 1.0), wanted, atol=1e-6)  # the edit itself is kept in float32


def test_the_norm_form_keeps_every_rows_norm_at_every_strength():
    matrix = torch.randn(16, 24, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    edit = norm_edit("x", direction(16), 1.0, matrix)
    for strength in (0.25, 0.5, 1.0):
        edited = applied(edit, torch.eye(24, dtype=torch.float64) @ matrix.T, strength).T
        assert torch.allclose(edited.norm(dim=1), matrix.norm(dim=1), rtol=1e-5)
        assert torch.allclose(edited, ablated(matrix, direction(16), strength, True), atol=1e-5)


def test_undone_is_byte_identical(frozen):
    before = logits(frozen)
    width = frozen.model.config.hidden_size
    edits = EditSet(frozen.model, [plain_edit(OUT, direction(width), 1.0)])
    frozen.interventions.replace(edits)
    edited = logits(frozen)
    assert not torch.equal(edited, before)
    assert torch.equal(logits(frozen, "start"), before) and torch.equal(logits(frozen, "base"), before)
    assert torch.equal(logits(frozen), edited), "looking at the start must not switch the edit off"
    edits.strength = 0.0
    assert torch.equal(logits(frozen), before)
    edits.strength = 1.0
    frozen.interventions.replace()
    assert torch.equal(logits(frozen), before)


@pytest.mark.parametrize("quantization", ["none", "4bit"])
@pytest.mark.parametrize("form", ["plain", "norm"])
def test_edits_are_exact_on_an_adapter_and_on_a_quantized_base(
    form, quantization, backend, lineage, settings, stage, rows, link_type, tmp_path
):
    """The output of the edited module is its input times the textbook edit of what it really applies."""
    policy = backend.load(lineage, tmp_path, settings(quantization=quantization))
    backend.train("sft", policy, rows["sft"], stage(steps=4, learning_rate=5e-3), link_type(tmp_path / "run"))
    module = causal_model(policy.model).get_submodule(OUT)
    matrix = effective_weight(module)
    plain = effective_weight(module.get_base_layer())
    assert (matrix - plain).abs().max() > 1e-4, "the adapter did nothing"
    unit = direction(matrix.shape[0])
    edit = plain_edit(OUT, unit, 0.8) if form == "plain" else norm_edit(OUT, unit, 0.8, matrix)
    policy.interventions.replace(EditSet(policy.model, [edit]))
    seen = {}
    handle = module.register_forward_hook(lambda _m, inputs, output: seen.update(x=inputs[0], y=output))
    logits(policy)
    handle.remove()
    wanted = seen["x"].double() @ ablated(matrix.double(), unit, 0.8, form == "norm").T
    assert torch.allclose(seen["y"].double(), wanted, atol=2e-4 * wanted.abs().max().item())


def test_edits_survive_the_disk_and_the_lineage_applies_them(frozen, backend, lineage, settings, tmp_path):
    import hashlib
    from dataclasses import replace

    width = frozen.model.config.hidden_size
    edits = [
        plain_edit(OUT, direction(width), 0.7),
        norm_edit("model.layers.0.self_attn.o_proj", direction(width, 3), 0.9, torch.randn(width, width)),
    ]
    save_edits(edits, tmp_path / "edits.safetensors", {"base": "lab-nano"})
    for saved, loaded in zip(edits, load_edits(tmp_path / "edits.safetensors"), strict=True):
        assert (saved.module, saved.weight) == (loaded.module, loaded.weight)
        assert all(np.array_equal(getattr(saved, name), getattr(loaded, name)) for name in "uwab")
    frozen.interventions.replace(EditSet(frozen.model, edits, 0.5))
    digest = hashlib.sha256((tmp_path / "edits.safetensors").read_bytes()).hexdigest()
    entry = {"method": "abliteration", "path": "edits.safetensors", "sha256": digest, "strength": 0.5}
    edited = replace(lineage, edits=[entry])
    for training in ("none", "lora"):
        again = backend.load(edited, tmp_path, settings(training=training))
        assert torch.equal(logits(again), logits(frozen))
        assert torch.equal(logits(again, "start"), logits(frozen)), "given edits are part of the start"
        assert torch.equal(logits(again, "base"), logits(frozen, "base"))
    with open(tmp_path / "edits.safetensors", "ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="changed"):
        backend.load(edited, tmp_path, settings(training="none"))


def test_directions_are_the_difference_of_means_at_the_last_tokens(frozen):
    """Against one unpadded forward for each prompt, in float64."""
    measured = refusal_directions(prompt_means(frozen, FORBIDDEN, 2), prompt_means(frozen, HARMLESS, 2), False)

    def brute(prompts):
        total = 0
        for prompt in prompts:
            ids = frozen.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
            with frozen.weights("policy") as model:
                states = model.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
            total = total + states[1][0, -2:].double()  # after the first layer
        return total / len(prompts)

    wanted = brute(FORBIDDEN) - brute(HARMLESS)
    wanted = wanted / wanted.norm(dim=-1, keepdim=True)
    assert measured.dtype == np.float64
    assert np.allclose(measured[0], wanted.numpy(), atol=1e-4)
    assert np.allclose(direction_at(measured, 0.0, -1), measured[0, -1])


def test_orthogonal_directions_leave_the_harmless_mean_alone(frozen):
    harmless = prompt_means(frozen, HARMLESS, 1)
    found = refusal_directions(prompt_means(frozen, FORBIDDEN, 1), harmless, True)
    along = harmless / np.linalg.norm(harmless, axis=-1, keepdims=True)
    assert np.abs((found * along).sum(-1)).max() < 1e-10


def test_the_bench_edits_what_every_layer_writes(frozen, tmp_path):
    bench = Bench(frozen)
    bench.extract(FORBIDDEN, HARMLESS, 2, False, tmp_path / "directions.safetensors")
    wide = {"weight": 1.0, "peak": 0.5, "width": 100.0}
    parameters = {"depth": 0.5, "position": -1, "form": "plain"}
    parameters |= {f"{part}.{name}": value for part in ("attention", "mlp") for name, value in wide.items()}
    layers = frozen.model.config.num_hidden_layers
    assert bench.apply(parameters, 1.0) == 2 * layers == len(bench.writers)
    seen = []
    names = [writer.module for writer in bench.writers]
    handles = [
        frozen.model.get_submodule(name).register_forward_hook(lambda _m, _i, out: seen.append(out)) for name in names
    ]
    logits(frozen)
    for handle in handles:
        handle.remove()
    unit = torch.from_numpy(direction_at(bench.directions, 0.5, -1)).float()
    assert max((out @ unit).abs().max().item() / out.norm(dim=-1).max().item() for out in seen) < 1e-3


MOE = {
    "qwen3_moe": {"moe_intermediate_size": 16, "num_experts": 4, "head_dim": 8, "mlp_only_layers": [0]},
    "mixtral": {"num_local_experts": 4},
    "qwen2_moe": {"moe_intermediate_size": 16, "num_experts": 4, "shared_expert_intermediate_size": 16},
    "gpt_oss": {"num_local_experts": 4, "head_dim": 8},
    "granitemoe": {"num_local_experts": 4},
}  # fmt: skip


def tiny(kind, **more):
    """A random model of an architecture: two layers of width 32."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    shape = {
        "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "num_experts_per_tok": 2, "max_position_embeddings": 64, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**shape, **more})).eval()


@pytest.mark.parametrize("kind", MOE)
def test_fused_experts_are_edited_as_a_block_and_nothing_is_written_along_the_direction(kind):
    """The stream's part along the direction is, after every layer, what the embedding brought."""
    model = tiny(kind, **MOE[kind])
    bench = Bench(SimpleNamespace(model=model))
    fused = bench.without_rows()
    assert len(fused) == (1 if kind == "qwen3_moe" else 2) and "layers.1" in fused[-1]
    unit = direction(32)
    ids = torch.tensor([[3, 4, 5, 6, 7]])
    plain = model(ids).logits
    edits = EditSet(model, [plain_edit(writer.module, unit, 1.0) for writer in bench.writers])
    states = model(ids, output_hidden_states=True, use_cache=False).hidden_states
    along = [state[0].double() @ unit for state in states[:-1]]  # the last one has been through the final norm
    kept = {}
    handle = decoder_layers(model)[-1].register_forward_hook(
        lambda _m, _i, out: kept.update(out=out[0] if isinstance(out, tuple) else out)
    )
    assert not torch.equal(model(ids).logits, plain)
    handle.remove()
    along.append(kept["out"].reshape(-1, 32).double() @ unit)
    assert max((later - along[0]).abs().max().item() for later in along[1:]) < 1e-5
    edits.detach()
    assert torch.equal(model(ids).logits, plain)


@pytest.mark.parametrize("forms, said", [(["plain", "norm"], "plain-only"), (["norm"], None)])
def test_the_norm_form_is_taken_back_or_refused_where_experts_are_fused(forms, said):
    from engine.stages.abliteration import _forms

    told = []
    context = SimpleNamespace(stage=SimpleNamespace(forms=forms), index=0, alert=lambda *words: told.append(words))
    bench = Bench(SimpleNamespace(model=tiny("mixtral", **MOE["mixtral"])))
    if said:
        assert _forms(context, bench) == ["plain"] and told[0][1] == said and "layers.0.mlp" in told[0][2]
    else:
        with pytest.raises(InputError, match="fused experts.*`plain` among the forms"):
            _forms(context, bench)


def test_a_second_writer_in_a_layer_is_refused_by_its_name():
    model = tiny("granitemoeshared", num_local_experts=4, shared_intermediate_size=16)
    with pytest.raises(InputError, match="layer 0.*`shared_mlp` beside them"):
        writers(model)


def test_a_layer_that_cannot_be_edited_is_named_and_not_skipped(frozen):
    layer = frozen.model.model.layers[0]
    layer.add_module("strange", layer.mlp)
    del layer.mlp
    with pytest.raises(InputError, match="layer 0.*strange"):
        writers(frozen.model)
