"""The head that is built whole says what TRL's tiles say, to the gradient, and only where it needs no more room."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from engine.backends.pytorch import heads
from engine.backends.pytorch.cpo import LinkedCPOTrainer
from engine.backends.pytorch.divergence import token_divergence
from engine.forecast import arithmetic

OUTPUTS = ("log_probs", "entropy", "mean_logits", "is_top1")
SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 300,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FORMS = {
    "llama": {"tie_word_embeddings": False},
    "gemma2": {"final_logit_softcapping": 3.0, "head_dim": 16, "query_pre_attn_scalar": 16},
    "granite": {"logits_scaling": 4.0},
    "cohere": {"logit_scale": 0.25},
}


def model_of(kind: str, **more):
    torch.manual_seed(1)
    config = AutoConfig.for_model(kind, **{**SHAPE, **FORMS.get(kind, {}), **more})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(30)  # far from uniform
    return model


@pytest.fixture
def batch():
    torch.manual_seed(2)
    ids = torch.randint(3, 300, (4, 17))
    labels = ids.clone()
    labels[:, :6] = -100
    labels[1, 12:] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def scored_by(model, batch, weights):
    """Outputs, and the gradients of a weighted sum of the log-probabilities."""
    model.zero_grad()
    out = model(**batch, fused_lm_head=True)
    (out.log_probs * weights).sum().backward()
    return out, {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("kind", FORMS)
def test_the_whole_head_is_trls(kind, batch):
    tiled, whole = model_of(kind), model_of(kind)
    add_fused_lm_head(tiled, temperature=0.7, outputs=OUTPUTS)
    add_fused_lm_head(whole, temperature=0.7, outputs=OUTPUTS)
    heads.add_small_head(whole, OUTPUTS, temperature=0.7)
    weights = torch.randn(4, 16)
    (first, first_grads), (second, second_grads) = (scored_by(model, batch, weights) for model in (tiled, whole))
    for name in ("log_probs", "entropy", "mean_logits", "loss"):
        assert torch.allclose(getattr(first, name), getattr(second, name), rtol=1e-4, atol=1e-5), name
    assert torch.equal(first.is_top1, second.is_top1) and torch.equal(first.label_mask, second.label_mask)
    assert first_grads.keys() == second_grads.keys()
    for name, value in first_grads.items():
        assert torch.allclose(value, second_grads[name], rtol=1e-3, atol=1e-4 * float(value.abs().max())), name


@pytest.mark.parametrize("kind", FORMS)
def test_the_whole_divergence_is_the_definition_to_the_gradient(kind):
    model, other = model_of(kind), model_of(kind)
    with torch.no_grad():
        other.get_output_embeddings().weight.add_(0.5)
    policy = torch.randn(9, 32, requires_grad=True)
    start = torch.randn(9, 32)
    weights = torch.rand(9)
    assert heads.small(9, 300, heads.DIVERGENCE_COPIES, tiles=2)
    found = token_divergence(model, policy, start, other)
    (gradient,) = torch.autograd.grad((found * weights).sum(), policy)

    exact = policy.detach().double().requires_grad_()
    first = torch.log_softmax(heads.head_logits(model.double(), exact), -1)
    second = torch.log_softmax(heads.head_logits(other.double(), start.double()), -1)
    wanted = (first.exp() * (first - second)).sum(-1)
    (wanted_gradient,) = torch.autograd.grad((wanted * weights).sum(), exact)
    assert torch.allclose(found.double(), wanted, rtol=1e-4, atol=1e-5)
    assert torch.allclose(gradient.double(), wanted_gradient, rtol=1e-3, atol=1e-4 * float(wanted_gradient.abs().max()))


def test_a_batch_without_any_label_stays_differentiable(batch):
    model = model_of("llama")
    add_fused_lm_head(model)
    heads.add_small_head(model, ("log_probs",))
    out = model(**{**batch, "labels": torch.full_like(batch["labels"], -100)}, fused_lm_head=True)
    out.loss.backward()
    assert out.loss.item() == 0


@pytest.mark.parametrize("positions", [1, 100, 4096, 100_000])
def test_whole_logits_never_need_more_than_the_tiles(positions):
    assert heads.HEAD_COPIES == arithmetic.HEAD_COPIES
    tile = min(positions, arithmetic.TILE_TOKENS) * arithmetic.TILE_VOCABULARY
    for words in (100, 869, 8192, 8193, 32_000, 128_256, 262_144):
        if heads.small(positions, words, heads.HEAD_COPIES):
            assert heads.HEAD_COPIES * positions * words <= tile
            assert words <= 8192  # so that the vocabularies of real models are left to TRL's tiles
    assert heads.small(positions, 869, heads.HEAD_COPIES) == (positions <= 4096 or positions * 869 * 4 <= tile)


def test_large_heads_and_16_bits_are_left_to_trl(batch, monkeypatch):
    monkeypatch.setattr(heads, "_score", lambda *_: pytest.fail("built whole"))
    large = model_of("llama", vocab_size=9000)
    half = model_of("llama").to(torch.bfloat16)
    for model in (large, half):
        add_fused_lm_head(model)
        heads.add_small_head(model, ("log_probs",))
        assert model(**batch, fused_lm_head=True).log_probs.shape == (4, 16)


def test_the_penalty_takes_fewer_positions_where_the_head_is_large():
    assert heads.penalty_positions(model_of("llama"), 4096) == heads.PENALTY_POSITIONS
    body = 32 * (32 + 16 + 16 + 32) + 3 * 32 * 48
    for words, tokens in ((40_000, 10**6), (120_000, 10**6)):
        found = heads.penalty_positions(model_of("llama", vocab_size=words), tokens)
        assert found == int(0.075 * tokens * body / (32 * words))
    assert heads.penalty_positions(model_of("llama", vocab_size=120_000), 100) == heads.PENALTY_LEAST


def test_cpos_gradient_is_the_objectives(backend, lineage, settings, stage, rows, link_type, tmp_path, monkeypatch):
    """DPO's loss plus the coefficient times the mean divergence over pairs and anchors, in float64 on whole logits."""
    seen = {}
    plain = LinkedCPOTrainer.training_step

    def watched(self, model, inputs, *args, **kwargs):
        batch = {name: value.clone() for name, value in inputs.items()}
        anchors = self._anchor_batch(batch["input_ids"].shape[0] // 2)
        coefficient = self.controller.coefficient
        loss = plain(self, model, inputs, *args, **kwargs)
        if self.state.global_step == 3:
            policy = self.policy.model
            grads = {name: value.grad.clone() for name, value in policy.named_parameters() if value.grad is not None}
            seen.update(batch=batch, anchors=anchors, coefficient=coefficient, loss=loss.item(), grads=grads)
            policy.double().zero_grad()
            seen["exact"] = self_exact(policy, seen)
            policy.float()
        return loss

    def self_exact(policy, seen):
        def logs(ids, attention):
            now = torch.log_softmax(policy(input_ids=ids, attention_mask=attention).logits[:, :-1], -1)
            with torch.no_grad(), policy.disable_adapter():
                then = torch.log_softmax(policy(input_ids=ids, attention_mask=attention).logits[:, :-1], -1)
            return now, then

        batch = seen["batch"]
        now, then = logs(batch["input_ids"], batch["attention_mask"])
        counted = batch["completion_mask"][:, 1:].bool()
        targets = batch["input_ids"][:, 1:].unsqueeze(-1)
        ratios = ((now - then).gather(-1, targets).squeeze(-1) * counted).sum(-1)
        chosen, rejected = ratios.chunk(2)
        loss = -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)).mean()
        ids, attention, trained = seen["anchors"]
        anchor_now, anchor_then = logs(ids, attention)
        kls = [
            (p.exp() * (p - q)).sum(-1)[mask]
            for p, q, mask in ((now, then, counted), (anchor_now, anchor_then, trained[:, 1:].bool()))
        ]
        loss = loss + seen["coefficient"] * torch.cat(kls).mean()
        loss.backward()
        grads = {name: value.grad.clone() for name, value in policy.named_parameters() if value.grad is not None}
        return loss.item(), grads

    monkeypatch.setattr(LinkedCPOTrainer, "training_step", watched)
    policy = backend.load(lineage, tmp_path, settings())
    region = SimpleNamespace(every=100, kl=1.0, retention=0.0, slower=0.5)
    link = link_type(tmp_path / "run")
    backend.train("cpo", policy, rows["cpo"], stage(steps=4, kl_coefficient=3.0, trust_region=region), link)
    loss, grads = seen["exact"]
    assert seen["loss"] == pytest.approx(loss, rel=1e-5)
    assert grads.keys() == seen["grads"].keys() and len(grads) > 10
    for name, value in grads.items():
        scale = float(value.abs().max())
        assert scale > 0 and torch.allclose(value.float(), seen["grads"][name], rtol=1e-2, atol=2e-4 * scale), name
