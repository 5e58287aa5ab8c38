"""The statistics behind the gates, against figures worked out elsewhere."""

import itertools
import math

import pytest

from engine.evaluate.statistics import falling_trend, mean_interval, newcombe, rising_trend, wilson


def test_wilson_matches_published_figures():
    # Newcombe 1998 (Statistics in Medicine 17:857), table I: 81/263, 15/148, 0/20, 1/29
    for (k, n), (low, high) in {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0.0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }.items():
        assert wilson(k, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_knows_nothing_without_rows_and_refuses_nonsense():
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match="0..3"):
        wilson(4, 3)


def test_refusals_below_five_percent_need_at_most_eleven_of_four_hundred():
    assert wilson(11, 400)[1] < 0.05 < wilson(12, 400)[1]


def test_newcombe_matches_published_figures():
    # Newcombe 1998 (Statistics in Medicine 17:873), method 10, cases a (56/70 - 48/80) and c (6/7 - 2/7)
    assert newcombe((48, 80), (56, 70)) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert newcombe((2, 7), (6, 7)) == pytest.approx((0.0582, 0.8062), abs=5e-5)


def test_no_change_is_never_a_gain():
    for n in (10, 100, 10_000):
        assert newcombe((n // 2, n), (n // 2, n))[0] < 0


def test_falling_trend_agrees_with_counting_every_order():
    values = [5.0, 4.0, 4.5, 2.0, 1.0]
    inversions = sum(a > b for a, b in itertools.combinations(values, 2))
    as_extreme = sum(
        sum(a > b for a, b in itertools.combinations(order, 2)) >= inversions
        for order in itertools.permutations(range(5))
    )
    assert falling_trend(values) == pytest.approx(as_extreme / math.factorial(5))
    assert rising_trend([-value for value in values]) == pytest.approx(falling_trend(values))


def test_a_flat_rising_or_broken_loss_is_no_falling_trend():
    assert falling_trend([1.0] * 10) == pytest.approx(1.0)
    assert falling_trend([1, 2, 3, 4, 5, 6]) > 0.99
    assert falling_trend([3, 2, math.nan, math.nan, math.nan]) > 0.5
    assert falling_trend([2, 1]) == 1.0


def test_long_series_use_the_normal_limit_near_the_exact_value():
    exact = falling_trend(list(range(60, 35, -1)) + [50.5] * 1 + list(range(34, 0, -1)))
    assert exact < 1e-6
    assert falling_trend([math.sin(i * 12.9898) for i in range(200)]) > 0.05


def test_mean_interval():
    mean, low, high = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert mean == 2.5
    assert high - mean == pytest.approx(mean - low) == pytest.approx(1.959964 * math.sqrt(5 / 3 / 4))
    assert math.isnan(mean_interval([])[0])
