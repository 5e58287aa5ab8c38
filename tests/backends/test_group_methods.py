"""GRPO and RLVR on PyTorch: advantages are the papers', and a resume is the uninterrupted run in every combination."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from engine.backends.groups import advantage_variance, process_advantages, silent_groups, token_at, token_ends
from engine.models.lineage import Adapter
from tests.backends.conftest import Vowels, questions
from tests.backends.test_training import adapter_weights, same


def trained(backend, lineage, settings, tmp_path, method, stage, link, rows):
    policy = backend.load(lineage, tmp_path, settings())
    backend.train(method, policy, SimpleNamespace(questions=questions(rows), verifier=Vowels()), stage, link)
    return policy


SEVERAL = {"accumulation": 2, "steps_per_generation": 4, "num_iterations": 2}
CASES = [
    ("rlvr", {}, 6, 5),  # the second and later epochs
    ("grpo", {"num_iterations": 2}, 40, 5),  # between two trainings on one generation
    ("grpo", {"num_iterations": 2, "kl_weight": 0.1}, 6, 5),
    ("grpo", {"steps_per_generation": 2}, 40, 5),  # between two parts of one generation
    ("rlvr", {"steps_per_generation": 2, "num_iterations": 2}, 8, 6),
    ("grpo", {"accumulation": 2}, 40, 5),
    ("rlvr", SEVERAL, 16, 3),
]
MATRIX = [
    (method, {"num_iterations": iterations, "steps_per_generation": parts, "accumulation": accumulation}, rows)
    for method in ("grpo", "rlvr")
    for iterations in (1, 2, 3)
    for parts in (None, 1, 2, 3, 4)
    for accumulation in (1, 2, 3)
    for rows in (40, 8)  # within the first epoch, and over several
]
"""Every combination that the schema allows, within small numbers, each resumed at three steps: what is left over of a
generation, an epoch, or both."""


@pytest.mark.parametrize("method, changes, rows, at", CASES)
def test_a_resumed_run_is_bit_identical(
    method, changes, rows, at, backend, lineage, settings, group_stage, link_type, tmp_path
):
    stage = group_stage(steps=8, max_new_tokens=8, **changes)
    resumed_at((at,), at, method, stage, rows, backend, lineage, settings, link_type, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("case", range(len(MATRIX)))
def test_a_resumed_run_is_bit_identical_in_every_combination(
    case, backend, lineage, settings, group_stage, link_type, tmp_path
):
    method, changes, rows = MATRIX[case]
    stage = group_stage(steps=8, max_new_tokens=8, **changes)
    resumed_at((3, 4, 5), 1, method, stage, rows, backend, lineage, settings, link_type, tmp_path)


def resumed_at(places, every, method, stage, rows, backend, lineage, settings, link_type, tmp_path):
    """The run that is resumed at each of those steps ends in the whole one's weights, losses and rewards."""
    first = link_type(tmp_path / "whole", every=every)
    whole = trained(backend, lineage, settings, tmp_path, method, stage, first, rows)
    for at in places:
        start = (tmp_path / "whole" / f"step-{at}", at)
        second = link_type(tmp_path / f"resumed-{at}", every=every, resume=start)
        again = trained(backend, lineage, settings, tmp_path, method, stage, second, rows)
        assert same(adapter_weights(whole), adapter_weights(again))
        assert second.losses() == {step: loss for step, loss in first.losses().items() if step > at}
        assert [values.get("reward") for _, values in second.steps] == [
            values.get("reward") for _, values in first.steps[at:]
        ]


def test_the_reward_rises(backend, lineage, settings, group_stage, link_type, tmp_path):
    link = link_type(tmp_path / "run")
    stage = group_stage(steps=30, batch_size=32, group_size=8, learning_rate=5e-3, max_new_tokens=8)
    trained(backend, lineage, settings, tmp_path, "grpo", stage, link, 40)
    rewards = [values["reward"] for _, values in link.steps]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.05
    assert link.steps[0][1]["kl"] == pytest.approx(0, abs=1e-6) and link.steps[20][1]["kl"] > 1e-4
    assert link.steps[0][1]["reward_vowels"] == pytest.approx(link.steps[0][1]["reward"])
    assert {"silent_groups", "clipped", "advantage_variance", "completion_length"} <= link.steps[0][1].keys()
    assert link.samples and set(link.samples[0][3]) == {"reward", "vowels"}
    # Of rewards normalised in their groups: 1 for each group that disagrees, whatever the scale, 0 for a silent one.
    for _, values in link.steps:
        assert values["advantage_variance"] == pytest.approx(1 - values["silent_groups"], abs=1e-6)


def test_a_group_is_silent_whatever_its_reward_and_however_near_others_are():
    assert silent_groups([0.3] * 8 + [1 / 3] * 8 + [0.0] * 7 + [1.0], 8) == pytest.approx(2 / 3)
    assert silent_groups([0.5, 0.5001], 2) == 0.0 and silent_groups([0.2, 0.2, 0.9, 0.9], 2) == 1.0


def test_advantage_variance_is_the_share_of_groups_that_disagree():
    rewards = [1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.2, 0.4, 0.6, 0.8]
    assert advantage_variance(rewards, 4) == pytest.approx(2 / 3)


def test_process_advantages_are_deepseekmaths():
    """Two completions in a group with step rewards (1, 0) and (1): mean 2/3, deviation sqrt(2)/3."""
    advantages = process_advantages([[(1, 1.0), (3, 0.0)], [(2, 1.0)]], 2, 5)
    up, down = (1 / 3) / (2**0.5 / 3), (-2 / 3) / (2**0.5 / 3)
    expected = [[up + down, up + down, down, down, 0.0], [up, up, up, 0.0, 0.0]]
    assert np.allclose(advantages, expected)
    assert not process_advantages([[(1, 1.0)], [(2, 1.0)], [], []], 2, 5).any()  # alike, and none


def test_a_step_ends_at_its_token(backend, lineage, settings, tmp_path):
    tokenizer = backend.load(lineage, tmp_path, settings()).tokenizer
    for text in ("14 - 4 = 10; 10 * 2 = 20; answer 20.", "héllo wörld; ✓ 3 = 3"):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        ends = token_ends(tokenizer, tokens, text)
        assert ends[-1] == len(text) and ends == sorted(ends)
        for character in (1, len(text) // 2, len(text)):
            place = token_at(ends, character)
            assert ends[place] >= character and (place == 0 or ends[place - 1] < character)


def test_prompts_that_leave_no_room_are_left_out(backend, lineage, settings, group_stage, link_type, tmp_path, capsys):
    from recipes.errors import InputError

    policy = backend.load(lineage, tmp_path, settings())
    rows = SimpleNamespace(questions=questions(12), verifier=Vowels())
    rows.questions[0].prompt[0]["content"] *= 20
    backend.train("grpo", policy, rows, group_stage(steps=1), link_type(tmp_path / "run"))
    assert "1 of 12 prompts have more than 84 tokens" in capsys.readouterr().out
    with pytest.raises(InputError, match="max_length"):
        backend.train("grpo", policy, rows, group_stage(steps=1, max_length=13), link_type(tmp_path / "none"))
    with pytest.raises(InputError, match="11 prompts, fewer than the 12 that one generation answers"):
        backend.train("grpo", policy, rows, group_stage(steps_per_generation=6), link_type(tmp_path / "few"))


@pytest.mark.parametrize("method, changes", [("grpo", {}), ("rlvr", {"kl_weight": 0.1, "accumulation": 2})])
def test_the_probe_answers_the_longest_prompt_to_the_limit_and_leaves_nothing_behind(
    method, changes, backend, lineage, settings, group_stage, link_type, tmp_path
):
    told = []

    class Probed(link_type):
        def measured_longest(self, *figures):
            told.append(figures)

    stage = group_stage(steps=4, **changes)
    plain, probed = link_type(tmp_path / "plain"), Probed(tmp_path / "probed")
    policies = [
        trained(backend, lineage, settings, tmp_path / str(number), method, stage, link, 12)
        for number, link in enumerate((plain, probed))
    ]
    assert plain.losses() == probed.losses() and len(plain.losses()) == 4
    assert same(adapter_weights(policies[0]), adapter_weights(policies[1]))
    (rows, length, memory_mib, seconds) = told[0]
    assert len(told) == 1 and rows == 8 and length > 12 + 5 and memory_mib > 0 and seconds > 0


@pytest.mark.parametrize("method", ["grpo", "rlvr"])
def test_a_carried_adapter_is_held_to_where_the_stage_began(
    method, backend, lineage, settings, group_stage, link_type, tmp_path
):
    first = trained(backend, lineage, settings, tmp_path, "grpo", group_stage(steps=2), link_type(tmp_path / "one"), 12)
    first.save(tmp_path / "out")
    carried = replace(lineage, adapter=Adapter(path="out/adapter", sha256=""))
    link = link_type(tmp_path / "two")
    policy = trained(backend, carried, settings, tmp_path, method, group_stage(steps=2, kl_weight=0.1), link, 12)
    assert len(link.losses()) == 2
    prompts = [list(question.prompt) for question in questions(4)]
    completions = policy.generate(prompts, max_new_tokens=8, temperature=1.0, seed=1)
    # What the stage began with is neither what it trained nor the base.
    apart = {
        which: sum(one.total for one in policy.divergence(prompts, completions, to=which))
        for which in ("start", "base")
    }
    assert apart["start"] > 0 and apart["start"] != apart["base"]
