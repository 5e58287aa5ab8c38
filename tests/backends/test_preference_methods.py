"""ORPO and CPO on PyTorch: their losses are the papers', the trust region goes back to the bit, and so does a resume."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from engine.backends.interface import Probe
from engine.backends.pytorch.cpo import Controller
from engine.backends.pytorch.orpo import orpo_loss
from tests.backends.test_training import adapter_weights, logprobs, same


def test_the_odds_ratio_loss_is_the_papers():
    logprobs = torch.tensor([-4.0, -9.0, -12.0, -2.0], dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([4, 3, 6, 5])
    loss, log_odds = orpo_loss(logprobs, lengths, 0.25)

    def odds(total, length):
        p = math.exp(total / length)
        return p / (1 - p)

    wanted = [math.log(odds(-4, 4) / odds(-12, 6)), math.log(odds(-9, 3) / odds(-2, 5))]
    likelihood = (4 + 9) / 7
    penalty = sum(math.log(1 + math.exp(-value)) for value in wanted) / 2
    assert log_odds.tolist() == pytest.approx(wanted, rel=1e-5)
    assert loss.item() == pytest.approx(likelihood + 0.25 * penalty, rel=1e-5)
    loss.backward()
    assert torch.isfinite(logprobs.grad).all()


def test_the_odds_ratio_stays_finite_at_both_ends():
    for value in (-1e-9, -1e-3, -0.7, -60.0):
        logprobs = torch.tensor([value, -1.0], requires_grad=True)
        loss, _ = orpo_loss(logprobs, torch.tensor([1, 1]), 1.0)
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(logprobs.grad).all()


def test_orpos_margin_gauge_is_the_gap(backend, lineage, settings, stage, rows, link_type, tmp_path):
    """The gauge of step 11 is 0.1 times the log-ratio difference of the weights that step 10 left."""
    policy = backend.load(lineage, tmp_path, settings())
    pairs = rows["orpo"][:2]
    exact = []

    def brute_force(step):
        if step == 10:
            for row in pairs:
                margin = 0.0
                for text, sign in ((row.chosen, 1), (row.rejected, -1)):
                    now, then = logprobs(policy, row.prompt, text)
                    opening = policy.tokenizer.apply_chat_template(
                        row.prompt, add_generation_prompt=True, tokenize=True, return_dict=False
                    )
                    whole = policy.tokenizer.apply_chat_template(
                        [*row.prompt, {"role": "assistant", "content": text}], tokenize=True, return_dict=False
                    )
                    targets = torch.tensor(whole[len(opening) :]).unsqueeze(-1)
                    margin += sign * (now - then).gather(-1, targets).sum().item()
                exact.append(0.1 * margin)

    link = link_type(tmp_path / "run", after_step=brute_force)
    backend.train("orpo", policy, pairs, stage(steps=11, batch_size=2), link)
    assert link.steps[10][1]["reward"] == pytest.approx(sum(exact) / 2, rel=1e-3) and exact[0] > 0


def test_the_coefficient_follows_the_divergence():
    controller = Controller(1.0, 0.04)
    controller.update(0.4)
    assert controller.coefficient == pytest.approx(1.02)  # clipped at 20 % of error
    controller.update(0.0)
    assert controller.coefficient == pytest.approx(1.02 * 0.98)
    controller.update(0.042)
    assert controller.coefficient == pytest.approx(1.02 * 0.98 * 1.005)


def test_the_penalty_holds_the_policy_back(backend, lineage, settings, stage, rows, link_type, tmp_path):
    def last_kl(coefficient):
        policy = backend.load(lineage, tmp_path, settings())
        link = link_type(tmp_path / f"run-{coefficient}")
        backend.train("cpo", policy, rows["cpo"], stage(steps=12, kl_coefficient=coefficient), link)
        return link.steps[-1][1]["kl"]

    assert last_kl(100.0) < 0.5 * last_kl(0.001)


def test_a_step_back_is_a_step_back(backend, lineage, settings, stage, rows, link_type, tmp_path):
    """Outside at step 6: the weights are those of step 3, the coefficient doubles, the learning rate halves."""
    policy = backend.load(lineage, tmp_path, settings())
    seen = {}
    link = link_type(tmp_path / "run", after_step=lambda step: seen.update({step: adapter_weights(policy)}))
    link.outside = (6,)
    backend.train("cpo", policy, rows["cpo"], stage(steps=9, schedule="constant_with_warmup"), link)
    assert link.probes == [(3, True), (6, False), (9, True)]
    assert same(seen[6], seen[3]) and not same(seen[5], seen[3])
    steps = dict(link.steps)
    assert steps[7]["kl_coefficient"] == pytest.approx(2 * steps[6]["kl_coefficient"], rel=0.05)
    assert steps[8]["learning_rate"] == pytest.approx(steps[5]["learning_rate"] / 2)


@pytest.mark.parametrize(
    "kl, kept, held",
    [(0.05, 0.95, True), (0.051, 1.0, False), (0.01, 0.94, False), (0.01, None, True), (math.nan, 1.0, False)],
)
def test_either_limit_is_a_breach(kl, kept, held, backend, lineage, settings, stage, rows, link_type, tmp_path):
    """The region's edges (KL 0.05, retention 0.95) are inside; a KL that is no number is not."""

    class Probed(link_type):
        def probe(self, step):
            return Probe(kl=kl, retention=kept, n=4)

    policy = backend.load(lineage, tmp_path, settings())
    start = adapter_weights(policy)
    link = Probed(tmp_path / "run")
    backend.train("cpo", policy, rows["cpo"], stage(steps=3), link)
    assert link.probes == [(3, held)] and same(adapter_weights(policy), start) is not held


def test_back_to_the_very_start(backend, lineage, settings, stage, rows, link_type, tmp_path):
    policy = backend.load(lineage, tmp_path, settings())
    start = adapter_weights(policy)
    link = link_type(tmp_path / "run")
    link.outside = (3, 6)
    backend.train("cpo", policy, rows["cpo"], stage(steps=6), link)
    assert same(adapter_weights(policy), start)


@pytest.mark.parametrize("outside", [(3,), (6,), (3, 6, 9)])
def test_a_resume_across_a_step_back_is_bit_identical(
    outside, backend, lineage, settings, stage, rows, link_type, tmp_path
):
    whole, again = (backend.load(lineage, tmp_path, settings()) for _ in range(2))
    first = link_type(tmp_path / "whole")
    second = link_type(tmp_path / "resumed", resume=(tmp_path / "whole" / "step-5", 5))
    first.outside = second.outside = outside
    backend.train("cpo", whole, rows["cpo"], stage(), first)
    backend.train("cpo", again, rows["cpo"], stage(), second)
    assert same(adapter_weights(whole), adapter_weights(again))
    assert second.losses() == {step: loss for step, loss in first.losses().items() if step > 5}


def test_cpo_without_anchors_and_with_accumulation(backend, lineage, settings, stage, rows, link_type, tmp_path):
    policy = backend.load(lineage, tmp_path, settings())
    link = link_type(tmp_path / "run")
    backend.train("cpo", policy, rows["cpo"], stage(anchors=SimpleNamespace(share=0.0), accumulation=2), link)
    assert "kl_anchors" not in link.steps[-1][1] and link.steps[-1][1]["kl"] > 0
