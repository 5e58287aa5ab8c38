"""Rows end to end: the same losses, gauges and bits as padded rows, and refused for a model that would mix them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from engine.backends.pytorch.end_to_end import laid_out, rows_apart, why_not
from engine.backends.pytorch.policy import TorchPolicy
from engine.backends.pytorch.speedups import padding, padding_share
from recipes.errors import InputError

LOCAL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 200,
    "max_position_embeddings": 64,
}
KINDS = {
    "llama": {"num_key_value_heads": 2, "intermediate_size": 48},
    "mistral": {"num_key_value_heads": 2, "intermediate_size": 48, "sliding_window": 4},
    "gpt2": {},
}  # fmt: skip


def conversations():
    """24 rows, the longest six times the shortest."""
    return [
        [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "Tarn and Bree. " * (1 + i % 6)}]
        for i in range(24)
    ]


@pytest.fixture
def trained(backend, lineage, settings, stage, link_type, tmp_path):
    """Trains SFT in a folder of that name; gives the policy and its link."""

    def train(name, link=None, *, loaded=None, **changes):
        policy = backend.load(lineage, tmp_path, settings(**(loaded or {})))
        link = link or link_type(tmp_path / name)
        backend.train("sft", policy, conversations(), stage(steps=12, **changes), link)
        return policy, link

    return train


def weights(policy):
    return {name: value.clone() for name, value in policy.model.named_parameters() if ".default." in name}


def test_losses_gradients_and_gauges_are_those_of_padded_rows(trained):
    """Two KL gauges are read in twelve steps, at the first and at the eleventh."""
    _, padded = trained("padded", accumulation=2)
    _, free = trained("free", accumulation=2, padding_free=True)
    for (step, one), (other_step, other) in zip(padded.steps, free.steps, strict=True):
        assert step == other_step and one["tokens"] == other["tokens"]
        for gauge in ("loss", "grad_norm", "token_accuracy", "entropy"):
            assert other[gauge] == pytest.approx(one[gauge], rel=1e-3, abs=1e-6), (step, gauge)
    read = [[values["kl"] for _, values in link.steps if "kl" in values] for link in (padded, free)]
    assert len(read[0]) == 2 and read[0][1] > 1e-4 and read[1] == pytest.approx(read[0], rel=1e-2, abs=1e-7)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_probed_and_resumed_run_is_the_other_to_the_bit(checkpointing, backend, trained, link_type, tmp_path):
    told = []

    class Probed(link_type):
        def measured_longest(self, *figures):
            told.append(figures)

    def disturb(step):
        again.generate([conversations()[0][:1]], max_new_tokens=4, temperature=1.0, seed=step)

    options = {"padding_free": True, "gradient_checkpointing": checkpointing}
    loaded = {"gradient_checkpointing": checkpointing, "dropout": 0.1}
    whole, uninterrupted = trained("whole", loaded=loaded, **options)
    resumed = Probed(tmp_path / "resumed", resume=(tmp_path / "whole" / "step-5", 5))
    again, _ = trained("again", resumed, loaded=loaded, **options)
    assert resumed.losses() == {step: loss for step, loss in uninterrupted.losses().items() if step > 5}
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(whole).items())
    assert told[0][0] == 4 and told[0][1] > 30


@pytest.mark.parametrize("kind", KINDS)
def test_hidden_states_and_gradients_are_each_rows_own(kind):
    """Grouped keys, a window shorter than the rows, learned positions."""
    torch.manual_seed(3)
    config = AutoConfig.for_model(kind, **{**LOCAL, **KINDS[kind]})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa").eval()
    rows = [torch.randint(3, 200, (length,)).tolist() for length in (9, 3, 14)]
    apart = torch.cat([model(torch.tensor([row])).logits[0] for row in rows])
    inputs, bounds = laid_out(rows, torch.device("cpu"))
    with rows_apart(model, bounds):
        together = model(**inputs, use_cache=False).logits[0]
    assert torch.allclose(apart, together, atol=1e-5)
    assert model.config._attn_implementation == "sdpa"
    first = next(model.parameters())
    one, other = (torch.autograd.grad(logits.square().sum(), first)[0] for logits in (apart, together))
    assert torch.allclose(one, other, atol=1e-4)


def policy_of(kind, attention="sdpa", **more):
    torch.manual_seed(3)
    config = AutoConfig.for_model(kind, **{**LOCAL, **more})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention)
    settings = SimpleNamespace(training="full")
    return TorchPolicy(model, None, torch.device("cpu"), settings, adapter_at_start=False)


def test_a_model_that_would_let_a_row_into_the_next_is_found_out():
    rows = [list(range(3, 20)), list(range(30, 52))]
    assert why_not(policy_of("llama", **KINDS["llama"]), rows, False) is None
    recurrent = {"num_key_value_heads": 1, "intermediate_size": 48, "lru_width": 32, "head_dim": 8}
    assert "other hidden states" in why_not(policy_of("recurrent_gemma", **recurrent), rows, False)
    assert "`eager` attention" in why_not(policy_of("llama", "eager", **KINDS["llama"]), rows, False)


def test_training_refuses_what_cannot_be_kept_apart(trained):
    with pytest.raises(InputError, match=r"padding_free.*`eager` attention cannot keep rows apart.*`false`"):
        trained("eager", padding_free=True, loaded={"attention": "eager"})


def test_the_log_says_how_much_is_padding(trained, capsys):
    assert padding_share([10] * 8, 4) == pytest.approx(0) and padding_share([1, 9], 64) == pytest.approx(
        4 / 9, abs=1e-6
    )
    assert "50%" in padding([0, 2], 99, False) and "`padding_free: true`" in padding([0, 2], 99, False)
    assert "`padding_free: true`" not in padding([9, 10], 4, False)
    trained("told", padding_free=True)
    assert "speed-ups: padding-free: the rows of a micro-batch lie end to end; 25% of it" in capsys.readouterr().out
