"""GRPO and RLVR on MLX: a resume is the uninterrupted run in every combination, the reward rises, gauges are told."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from engine.backends import open_backend
from engine.backends.groups import turns_of_step
from recipes.errors import InputError
from tests.backends.conftest import Vowels, questions
from tests.backends.test_mlx_training import same, told

pytest.importorskip("mlx.core")


def trained(lineage, settings, folder, method, stage, link, rows):
    backend = open_backend("mlx")
    policy = backend.load(lineage, folder, settings())
    backend.train(method, policy, SimpleNamespace(questions=questions(rows), verifier=Vowels()), stage, link)
    return policy


@pytest.mark.parametrize(
    "method, changes, rows, at",
    [
        ("grpo", {}, 6, 5),  # the second and later epochs
        ("rlvr", {"num_iterations": 2}, 40, 5),  # between two trainings on one generation
        ("grpo", {"steps_per_generation": 2, "num_iterations": 2}, 8, 6),
        ("rlvr", {"accumulation": 2, "steps_per_generation": 4, "num_iterations": 2, "kl_weight": 0.1}, 16, 3),
    ],
)
def test_a_resumed_run_is_bit_identical(method, changes, rows, at, lineage, settings, group_stage, link_type, tmp_path):
    stage = group_stage(steps=8, **changes)
    first = link_type(tmp_path / "whole", every=at)
    whole = trained(lineage, settings, tmp_path, method, stage, first, rows)
    second = link_type(tmp_path / "resumed", every=at, resume=(tmp_path / "whole" / f"step-{at}", at))
    again = trained(lineage, settings, tmp_path, method, stage, second, rows)
    assert same(whole.network.trained(), again.network.trained())
    assert told(second) == told(first, after=at) and len(second.steps) == 8 - at


def test_the_reward_rises(lineage, settings, group_stage, link_type, tmp_path):
    link = link_type(tmp_path / "run", every=1000)
    stage = group_stage(steps=12, batch_size=24, group_size=8, learning_rate=5e-3, max_new_tokens=8)
    trained(lineage, settings, tmp_path, "grpo", stage, link, 40)
    rewards = [values["reward"] for _, values in link.steps]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.05
    first = link.steps[0][1]
    assert first["kl"] == pytest.approx(0, abs=1e-6) and link.steps[10][1]["kl"] > 1e-4
    assert first["reward_vowels"] == pytest.approx(first["reward"])
    assert {"silent_groups", "clipped", "advantage_variance", "completion_length", "entropy"} <= first.keys()
    assert link.samples and set(link.samples[0][3]) == {"reward", "vowels"}


def test_the_probe_leaves_nothing_behind(lineage, settings, group_stage, link_type, tmp_path):
    found = []

    class Probed(link_type):
        def measured_longest(self, *figures):
            found.append(figures)

    stage = group_stage(steps=3, kl_weight=0.1, accumulation=2)
    plain, probed = link_type(tmp_path / "plain"), Probed(tmp_path / "probed")
    policies = [trained(lineage, settings, tmp_path, "rlvr", stage, link, 12) for link in (plain, probed)]
    assert same(*(policy.network.trained() for policy in policies)) and told(plain) == told(probed)
    rows, length, memory_mib, seconds = found[0]
    assert len(found) == 1 and rows == 8 and length > 12 + 5 and memory_mib > 0 and seconds > 0


def test_too_few_prompts_for_a_generation_are_told(lineage, settings, group_stage, link_type, tmp_path):
    with pytest.raises(InputError, match="1 prompts.*2 that one generation answers"):
        trained(lineage, settings, tmp_path, "grpo", group_stage(), link_type(tmp_path / "run"), 1)


def test_turns_are_those_of_trls_sampler():
    """An epoch is whole generations, each used as often as the stage says; its last step takes what is left."""
    stage = SimpleNamespace(
        batch_size=4, accumulation=2, steps_per_generation=3, group_size=4, num_iterations=1,
        data=SimpleNamespace(source="rows"),
    )  # fmt: skip
    steps = [turns_of_step(step, 7, stage, seed=3) for step in range(6)]
    assert [[(turn.generation, turn.part) for turn in turns] for turns in steps] == [
        [(0, 0), (0, 1)], [(0, 2), (1, 0)], [(1, 1), (1, 2)],
        [(2, 0), (2, 1)], [(2, 2), (3, 0)], [(3, 1), (3, 2)],
    ]  # fmt: skip
    asked = [turn.prompts for turns in steps[:3] for turn in turns]
    assert np.unique(asked[0] + asked[3]).size == 6 and asked[0] == asked[1] == asked[2]
