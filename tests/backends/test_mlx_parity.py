"""The same recipe on both backends: same initial adapter, same data order, fp32, CPU; the same losses and gauges."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine.backends import open_backend
from engine.backends.data_order import epoch_order, steps_from
from tests.backends.conftest import Vowels, questions

pytest.importorskip("mlx_lm")

GAUGES = {
    "sft": ("kl",),
    "dpo": ("kl", "reward", "preference_accuracy", "logprob_chosen"),
    "orpo": ("kl", "reward", "log_odds"),
    "cpo": ("kl", "reward", "kl_anchors", "kl_coefficient"),
}


def trained(name, method, lineage, settings, stage, rows, link_type, folder):
    backend = open_backend(name)
    policy = backend.load(lineage, folder, settings)
    link = link_type(folder / f"{name}-{method}", every=1000)
    backend.train(method, policy, rows[method], stage, link)
    return policy, dict(link.steps)


@pytest.mark.parametrize("method", list(GAUGES))
def test_twenty_losses_agree(method, lineage, settings, stage, rows, link_type, tmp_path):
    stage = stage(steps=20, accumulation=2 if method == "dpo" else 1, sft_weight=0.2 if method == "dpo" else 0.0)
    found = [
        trained(name, method, lineage, settings(dtype="fp32"), stage, rows, link_type, tmp_path)
        for name in ("pytorch", "mlx")
    ]
    (torch_policy, torch_steps), (mlx_policy, mlx_steps) = found
    assert len(torch_steps) == len(mlx_steps) == 20
    for step, told in torch_steps.items():
        assert mlx_steps[step]["loss"] == pytest.approx(told["loss"], rel=1e-3), step
        assert mlx_steps[step]["grad_norm"] == pytest.approx(told["grad_norm"], rel=5e-3), step
        assert mlx_steps[step]["tokens"] == told["tokens"]
        for name in GAUGES[method]:
            assert (name in told) == (name in mlx_steps[step]), (step, name)
            if name in told:
                assert mlx_steps[step][name] == pytest.approx(told[name], rel=1e-3, abs=1e-5), (step, name)
    prompts = [row.prompt for row in rows["dpo"][:6]]
    chosen = [row.chosen for row in rows["dpo"][:6]]
    for ours, theirs in zip(mlx_policy.score(prompts, chosen), torch_policy.score(prompts, chosen), strict=True):
        assert ours.logprob == pytest.approx(theirs.logprob, rel=1e-3) and ours.tokens == theirs.tokens
    completions = torch_policy.generate(prompts, max_new_tokens=8, temperature=1.0, seed=1)
    kls = [policy.divergence(prompts, completions, to="start") for policy in (mlx_policy, torch_policy)]
    for ours, theirs in zip(*kls, strict=True):
        assert ours.total == pytest.approx(theirs.total, rel=1e-3, abs=5e-5)


def written(prompts, group_size):
    """Random tokens in the place of sampled ones: the same for the same prompt and place in its group."""
    found = []
    for place, prompt in enumerate(prompts):
        draw = np.random.default_rng([*map(int, prompt), place % group_size])
        found.append([*draw.integers(20, 250, size=draw.integers(2, 11)).tolist()])
    return found


@pytest.mark.parametrize(
    "method, changes",
    [
        ("grpo", {}),
        ("rlvr", {"loss": "grpo", "num_iterations": 2, "kl_weight": 0.2, "temperature": 0.7, "clip": 0.05}),
        ("grpo", {"loss": "dr_grpo", "num_iterations": 2, "clip": 0.01}),
        ("rlvr", {"loss": "bnpo"}),
    ],
)
def test_the_group_objectives_agree(method, changes, lineage, settings, group_stage, link_type, tmp_path, monkeypatch):
    from engine.backends.mlx import grpo
    from engine.backends.pytorch.grpo import LinkedGRPOTrainer

    def torch_writes(self, prompt_ids, *_args, **_settings):
        return written(prompt_ids, self.group_size), None

    monkeypatch.setattr(LinkedGRPOTrainer, "_generate_single_turn", torch_writes)
    monkeypatch.setattr(grpo, "generate", lambda _network, prompts, **_settings: written(prompts, 4))
    rows = {method: SimpleNamespace(questions=questions(5), verifier=Vowels())}
    stage = group_stage(steps=8, **changes)
    (_, theirs), (_, ours) = (
        trained(name, method, lineage, settings(dtype="fp32"), stage, rows, link_type, tmp_path)
        for name in ("pytorch", "mlx")
    )
    assert len(theirs) == len(ours) == 8 and any("kl" in told for told in ours.values())
    for step, told in theirs.items():
        assert told.keys() == ours[step].keys() - {"clip_ratio"}
        for name in told.keys() - {"seconds", "tokens_per_second", "memory_mib"}:
            assert ours[step][name] == pytest.approx(told[name], rel=2e-3, abs=2e-5), (step, name)
    assert any(told["clip_ratio"] > 0 for told in ours.values()) == ("num_iterations" in changes)


def test_the_initial_adapter_is_the_same_to_the_bit(lineage, settings, tmp_path):
    torch_policy = open_backend("pytorch").load(lineage, tmp_path, settings())
    ours = open_backend("mlx").load(lineage, tmp_path, settings()).network.trained()
    theirs = {
        name.replace("base_model.model.", "").replace(".default.weight", "").lower(): value.detach().numpy().T
        for name, value in torch_policy.model.named_parameters()
        if ".default." in name
    }
    assert ours.keys() == theirs.keys() and all(np.array_equal(np.array(ours[name]), theirs[name]) for name in ours)
    assert any(value.any() for value in theirs.values())


@pytest.mark.parametrize("rows", [1, 2, 24, 999])
@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1])
def test_the_order_is_torchs(rows, seed):
    for epoch in (0, 3):
        expected = torch.randperm(rows, generator=torch.Generator().manual_seed(seed + epoch)).tolist()
        assert epoch_order(rows, seed, epoch) == expected


def test_a_resumed_order_is_the_rest_of_the_whole():
    whole = steps_from(0, 10, 4, 2, 7)
    steps = [next(whole) for _ in range(7)]
    assert [sum(map(len, step)) for step in steps[:3]] == [
        8,
        2,
        8,
    ]  # as the Trainer: an epoch's last step is what is left
    for done in range(6):
        resumed = steps_from(done, 10, 4, 2, 7)
        assert [next(resumed) for _ in range(7 - done)] == steps[done:]
