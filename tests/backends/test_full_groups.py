"""GRPO and RLVR in full fine-tuning: one frozen copy of the start, edits and all, for the loss and for the gauges."""

from __future__ import annotations

import gc
import hashlib
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, LlamaForCausalLM
from trl import GRPOTrainer

from engine.interventions.edits import plain_edit, save_edits
from tests.backends.conftest import Vowels, questions
from tests.backends.test_training import same


@pytest.fixture
def edited(lineage, tmp_path):
    """After an abliteration: without its edits the base is another model."""
    torch.manual_seed(2)
    width = AutoConfig.from_pretrained(lineage.base.path).hidden_size
    unit = torch.nn.functional.normalize(torch.randn(width, dtype=torch.float64), dim=0)
    path = tmp_path / "edits.safetensors"
    save_edits([plain_edit(f"model.layers.{layer}.mlp.down_proj", unit, 1.0) for layer in (0, 1)], path, {})
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    entry = {"method": "abliteration", "path": path.name, "sha256": digest, "strength": 1.0}
    return replace(lineage, edits=[entry])


@pytest.fixture
def told_by_trl(monkeypatch):
    """TRL's own estimate of the KL in its loss, by micro-batch; ours replaces it in the log."""
    told, loss = [], GRPOTrainer._compute_loss

    def listening(self, model, inputs):
        found = loss(self, model, inputs)
        told.extend(self._metrics["train"].get("kl", []))
        return found

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", listening)
    return told


def models():
    gc.collect()
    return sum(type(one) is LlamaForCausalLM for one in gc.get_objects())


def trained(policy, backend, method, stage, link, rows=12):
    backend.train(method, policy, SimpleNamespace(questions=questions(rows), verifier=Vowels()), stage, link)


@pytest.mark.parametrize("method", ["grpo", "rlvr"])
@pytest.mark.parametrize("weight", [0.04, 0.0])
def test_two_models_are_held_and_the_loss_compares_with_the_edited_start(
    weight, method, edited, told_by_trl, backend, settings, group_stage, link_type, tmp_path
):
    before, held = models(), []
    policy = backend.load(edited, tmp_path, settings(training="full", needs_reference=True))
    start = {name: value.clone() for name, value in policy.reference.named_parameters()}
    link = link_type(tmp_path / "run", after_step=lambda step: step == 1 and held.append(models() - before))
    stage = group_stage(steps=12, kl_weight=weight, learning_rate=1e-3, max_new_tokens=8)
    trained(policy, backend, method, stage, link, 40)
    assert held == [2]
    kls = [values["kl"] for _, values in link.steps if "kl" in values]
    assert len(kls) == 2 and kls[0] == pytest.approx(0, abs=1e-7) and kls[1] > 1e-4
    assert len(told_by_trl) == (12 if weight else 0)
    if weight:
        assert told_by_trl[0] == pytest.approx(0, abs=1e-7) and told_by_trl[-1] > 1e-4
    assert all(torch.equal(value, start[name]) for name, value in policy.reference.named_parameters())
    prompts = [list(question.prompt) for question in questions(4)]
    completions = policy.generate(prompts, max_new_tokens=8, temperature=1.0, seed=1)
    assert sum(one.total for one in policy.divergence(prompts, completions, to="start")) > 1e-3


def test_a_full_stage_with_the_kl_in_its_loss_resumes_to_the_bit(
    edited, backend, settings, group_stage, link_type, tmp_path
):
    stage = group_stage(steps=6, kl_weight=0.04, num_iterations=2, learning_rate=1e-3, max_new_tokens=8)
    weights, links = [], []
    for name, resume in (("whole", None), ("resumed", (tmp_path / "whole" / "step-3", 3))):
        policy = backend.load(edited, tmp_path, settings(training="full", needs_reference=True))
        links.append(link_type(tmp_path / name, every=3, resume=resume))
        trained(policy, backend, "grpo", stage, links[-1])
        weights.append(dict(policy.model.named_parameters()))
    assert same(*weights)
    assert links[1].losses() == {step: loss for step, loss in links[0].losses().items() if step > 3}
