"""Which vector a candidate means: mean against principal axis, where a condition lies, and the random floor."""

from __future__ import annotations

import numpy as np
import pytest

from engine.interventions.directions import contrast_of
from engine.interventions.steering import SteeringBench

WIDTH = 16
AXIS, OTHER = np.eye(WIDTH)[0], np.eye(WIDTH)[1]
CANDIDATE = {"persona": "warm", "source": "told", "form": "mean", "depth": 1.0, "window": 1, "strength": 0.5}


class Bench(SteeringBench):
    """Its model has two layers; a prompt is a number, and lies that far along the axis after each of them."""

    def __init__(self):
        super().__init__()
        self.acting = []

    def prompt_means(self, prompts, positions):
        return np.full((2, positions, WIDTH), 1.0) * np.mean(prompts) * AXIS

    def completion_means(self, rows, progress):
        means = np.stack([np.stack([value * AXIS, value * AXIS]) for _, value in rows])
        return means, np.array([4.0, 8.0])

    def hang(self, vectors):
        self.acting = list(vectors)

    def held(self, vector, prompts):
        return sum(float(p * AXIS @ vector.condition.direction) > vector.condition.threshold for p in prompts)


@pytest.fixture
def bench(tmp_path):
    made = Bench()
    made.extract("warm", "told", [(None, 2.0)] * 3, [(None, 1.0)] * 3, tmp_path / "warm.safetensors", None)
    return made


def test_the_principal_axis_is_what_most_pairs_share_where_the_mean_follows_one_that_is_far_off():
    sizes = np.array([3.0, -3.0, 3.0, -3.0, 3.2])  # pairs that point both ways along one axis
    rows = sizes[:, None] * AXIS
    rows[4] += 2.0 * OTHER
    found = contrast_of((rows[:, None], np.ones(1)), (np.zeros((5, 1, WIDTH)), np.ones(1)))
    assert found.pca[0] @ AXIS > 0.95 and found.mean[0] @ AXIS < 0.9
    assert np.linalg.norm(found.pca[0]) == pytest.approx(1) == np.linalg.norm(found.mean[0])


def test_a_strength_is_in_norms_of_the_stream_where_the_vector_is_added(bench, tmp_path):
    assert (
        bench.vector(CANDIDATE).calibrated == 0.5 * 8.0 and bench.vector({**CANDIDATE, "depth": 0.0}).calibrated == 2.0
    )
    assert np.allclose(bench.vector(CANDIDATE).direction, AXIS)
    bench.extract("warm", "told", [], [], tmp_path / "warm.safetensors", None)  # on the disk: nothing is read off again
    assert np.allclose(bench.vector(CANDIDATE).direction, AXIS)


def test_a_condition_lies_half_way_between_the_personas_prompts_and_general_ones(bench, tmp_path):
    assert bench.vector(CANDIDATE).condition is None
    bench.extract_condition("warm", [3.0, 5.0], [0.0, 2.0], tmp_path / "condition.safetensors")
    assert bench.vector(CANDIDATE).condition.threshold == pytest.approx((4.0 + 1.0) / 2)
    assert bench.fires(CANDIDATE, [3.0, 5.0, 2.6, 2.4, 0.0]) == 3


def test_the_floor_is_random_directions_as_long_in_the_same_places(bench):
    bench.apply_random([CANDIDATE, {**CANDIDATE, "depth": 0.0}], 3, [1.0, -0.5])
    first, second = drawn = bench.acting
    assert [(one.layer, one.calibrated, one.strength, one.window) for one in drawn] == [
        (1, 4.0, 1.0, 1),
        (0, 2.0, -0.5, 1),
    ]
    assert all(np.linalg.norm(one.direction) == pytest.approx(1, abs=1e-6) for one in drawn)
    assert abs(first.direction @ AXIS) < 0.9 and not np.allclose(first.direction, second.direction)
    bench.apply_random([CANDIDATE], 3)
    assert np.allclose(bench.acting[0].direction, first.direction)
    bench.apply_random([CANDIDATE], 4)
    assert not np.allclose(bench.acting[0].direction, first.direction)
