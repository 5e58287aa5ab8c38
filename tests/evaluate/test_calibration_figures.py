"""ECE, Brier score, the fit of a confidence temperature, and what both change, against tables worked out by hand.

The answers here are right or wrong by a choice of two: with a gap of g nats between the right logit and the other, the
answer's probability at temperature T is 1 / (1 + exp(-g / T)). The log-loss of one confidence for all is least at the share
that is right, so the best temperature of a share a is g / ln(a / (1 - a)).
"""

from __future__ import annotations

import math
import random

import pytest

from engine.evaluate.calibration import (
    AT_ONE,
    BINS,
    RESAMPLES,
    TEMPERATURES,
    Answered,
    brier,
    changes,
    confidence,
    ece,
    fit_confidence,
    measure_calibration,
    reliability,
)

LN3 = math.log(3)
"""The log-odds of 3 right in 4."""


def answer(right: bool, gap: float, tokens: int = 1) -> Answered:
    return Answered(right, tokens, tuple(-math.log1p(math.exp(-gap / t)) for t in TEMPERATURES))


def three_in_four(n: int, gap: float, tokens: int = 1) -> list[Answered]:
    """``n`` answers, every fourth wrong, all equally sure."""
    return [answer(place % 4 != 3, gap, tokens) for place in range(n)]


# ---- ECE and Brier -------------------------------------------------------------------------------------------------


def test_fifteen_bins_of_equal_mass_by_hand():
    """Pairs of neighbours share a bin. Pair k states 0.02 k and 0.02 k + 0.01 (k = 1…15) and has one answer right, but for
    the pairs 14 and 15, where both are: |0.02 k + 0.005 - 0.5| for k = 1…13, |… - 1| for 14 and 15, each a fifteenth.

    1…13: 13 * 0.495 - 0.02 * 91 = 4.615; 14: 0.715; 15: 0.695; in all 6.025 / 15."""
    rows = []
    for k in range(1, 16):
        rows += [(0.02 * k, k >= 14), (0.02 * k + 0.01, True)]
    random.Random(0).shuffle(rows)  # the bins follow the confidence, not the order of the rows
    stated, right = zip(*rows, strict=True)
    assert BINS == 15
    assert ece(stated, right) == pytest.approx(6.025 / 15)
    parts = reliability(stated, right)
    assert [n for *_, n in parts] == [2] * 15
    assert parts[0] == pytest.approx((0.025, 0.5, 2)) and parts[-1] == pytest.approx((0.305, 1.0, 2))


def test_bins_have_equal_mass_where_all_is_in_one_place():
    """Bins of equal width would put all of these into the last: 0.963 stated, 2/3 right, 0.297 apart. Here the third that is
    least sure (0.91, all wrong) has five bins and the rest (0.99, all right) ten: (0.91 + 2 * 0.01) / 3."""
    stated, right = [0.99, 0.91, 0.99] * 10, [True, False, True] * 10
    assert ece(stated, right) == ece(stated, right, bins=3) == pytest.approx(0.31)
    assert sorted(n for *_, n in reliability([i / 32 for i in range(32)], [True] * 32)) == [2] * 13 + [3] * 2


def test_errors_of_either_sign_count_and_those_within_a_bin_cancel():
    assert ece([0.9, 0.9, 0.1, 0.1], [False, False, True, True], bins=2) == pytest.approx(0.9)
    assert ece([0.5, 0.5], [True, False], bins=1) == 0.0
    assert ece([0.8], [True]) == pytest.approx(0.2) and ece([0.8], [False]) == pytest.approx(0.8)


def test_brier_by_hand():
    assert brier([1.0, 0.0], [True, False]) == 0.0 and brier([1.0, 0.0], [False, True]) == 1.0
    assert brier([0.5, 0.8, 0.3], [True, True, False]) == pytest.approx((0.25 + 0.04 + 0.09) / 3)


def test_what_is_told_of_a_set_of_answers():
    """Gap 4 ln 3: 81/82 stated at temperature 1 and 3/4 at 4; three in four are right."""
    answers = three_in_four(60, 4 * LN3)
    sure, right, wrong = 81 / 82, (1 / 82) ** 2, (81 / 82) ** 2
    for settings, stated, losses in (
        (None, sure, (right, wrong)),
        ({"temperature": 4.0}, 0.75, (0.0625, 0.5625)),
    ):
        measured = {one.name: one for one in measure_calibration(answers, settings)}
        mean = 0.75 * losses[0] + 0.25 * losses[1]
        spread = math.sqrt((45 * (losses[0] - mean) ** 2 + 15 * (losses[1] - mean) ** 2) / 59)
        assert {one.n for one in measured.values()} == {60}
        assert measured["confidence"].value == pytest.approx(stated)
        assert measured["ece"].value == pytest.approx(stated - 0.75, abs=1e-12)
        assert measured["brier"].value == pytest.approx(mean)
        assert measured["brier"].high - mean == pytest.approx(1.959964 * spread / math.sqrt(60), rel=1e-6)
        assert mean - measured["brier"].low == pytest.approx(measured["brier"].high - mean)


def test_a_confidence_is_that_of_its_length_and_never_above_one():
    one, long = answer(True, LN3), answer(True, LN3, tokens=5)
    settings = {"temperature": 0.5, "by_length": {"5": 2.0}}
    odds = lambda gap: math.exp(gap) / (1 + math.exp(gap))  # noqa: E731
    assert confidence(one, None) == confidence(one, {}) == pytest.approx(0.75)
    assert confidence(one, settings) == pytest.approx(0.9)  # odds of 9
    assert confidence(long, settings) == pytest.approx(odds(LN3 / 2))
    assert confidence(Answered(True, 1, (1e-9,) * len(TEMPERATURES)), None) == 1.0
    assert TEMPERATURES[AT_ONE] == 1.0


# ---- the fit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.25, 0.5, 1.0, 2.0, 4.0, 16.0])
def test_the_fit_finds_the_temperature_that_makes_it_true(temperature):
    """Too sure by so much is mended by a temperature above 1, too modest by one below."""
    assert fit_confidence(three_in_four(40, temperature * LN3)) == {"temperature": temperature}


def test_answers_that_are_all_right_are_stated_as_surely_as_can_be_and_all_wrong_ones_as_little():
    assert fit_confidence([answer(True, LN3)] * 8) == {"temperature": TEMPERATURES[0]}
    assert fit_confidence([answer(False, LN3)] * 8) == {"temperature": TEMPERATURES[-1]}


def test_the_fit_takes_the_error_away_and_the_brier_score_down():
    """At 3/4 stated the Brier score of three in four is 3/16, the least that any one confidence has."""
    answers = three_in_four(60, 4 * LN3)
    settings = fit_confidence(answers)
    assert settings == {"temperature": 4.0}
    cut, change = changes(answers, None, answers, settings, seed=1)
    was = 0.75 * (1 / 82) ** 2 + 0.25 * (81 / 82) ** 2
    assert (cut.name, change.name) == ("ece_cut", "brier_change")
    assert cut.value == pytest.approx(1.0) and change.value == pytest.approx(3 / 16 - was)
    assert cut.n == change.n == 60


def test_each_length_has_its_own_temperature_where_it_has_enough_answers():
    short, long, few = three_in_four(200, 4 * LN3), three_in_four(200, LN3, tokens=6), three_in_four(99, LN3, tokens=9)
    mixed = [one for pair in zip(short, long, strict=True) for one in pair]
    assert fit_confidence(mixed + few, "length")["by_length"] == {"1": 4.0, "6": 1.0}
    assert "by_length" not in fit_confidence(mixed, "one")


def test_lengths_are_told_apart_only_where_it_is_worth_it():
    """``auto``: two kinds of which one is too sure are told apart, two alike are not, nor too few."""
    short, long, alike = (
        three_in_four(n, gap, tokens) for n, gap, tokens in ((200, 4 * LN3, 1), (200, LN3, 6), (200, 4 * LN3, 6))
    )
    assert fit_confidence(_halved(short, long))["by_length"] == {"1": 4.0, "6": 1.0}
    assert fit_confidence(_halved(short, alike)) == {"temperature": 4.0}
    assert "by_length" not in fit_confidence(_halved(short[:96], long[:96]))


def _halved(*groups):
    """All of them, such that every second row is of the same make-up: both halves of the cross-validation are alike."""
    one = [row for group in groups for row in group[: len(group) // 2]]
    return [row for pair in zip(one, one, strict=True) for row in pair]


# ---- changes -------------------------------------------------------------------------------------------------------


def test_the_cut_is_the_share_of_the_error_that_is_gone():
    """All right: the error is 1 - p. Gap g ln 3 states 3^g / (1 + 3^g): 1/4 is missing for 1, 1/10 for 2, 1/28 for 3."""
    for first, second, cut in ((1, 2, 1 - 4 / 10), (2, 1, 1 - 10 / 4), (2, 3, 1 - 10 / 28), (2, 2, 0.0)):
        before, after = [answer(True, first * LN3)] * 30, [answer(True, second * LN3)] * 30
        missing = {1: 1 / 4, 2: 1 / 10, 3: 1 / 28}
        measured = changes(before, None, after, None, seed=0)
        assert measured[0].value == pytest.approx(cut)
        assert measured[1].value == pytest.approx(missing[second] ** 2 - missing[first] ** 2)
        assert (measured[0].low, measured[0].high) == pytest.approx((cut, cut))  # every draw is the same here


def test_no_error_to_begin_with_is_no_cut():
    surely = Answered(True, 1, (0.0,) * len(TEMPERATURES))
    cut, change = changes([surely] * 20, None, [surely] * 20, None, seed=0)
    assert cut.value == 0.0 and change.value == 0.0
    worse, more = changes([surely] * 20, None, [answer(True, LN3)] * 20, None, seed=0)
    assert worse.value == 0.0 and more.value == pytest.approx(1 / 16)


def test_the_interval_is_the_seeds_and_about_that_of_the_normal_law():
    """The change of one answer's loss is a = 1/16 - 1/82² where it is right and b = 9/16 - (81/82)² where not; the mean of
    60 such, a quarter of them b, spreads by |a - b| √(3/16) / √60."""
    answers = three_in_four(60, 4 * LN3)
    change = changes(answers, None, answers, {"temperature": 4.0}, seed=3)[1]
    a, b = 1 / 16 - (1 / 82) ** 2, 9 / 16 - (81 / 82) ** 2
    half = 1.96 * abs(a - b) * math.sqrt(3 / 16) / math.sqrt(60)
    assert change.value == pytest.approx(0.75 * a + 0.25 * b)
    assert change.high - change.value == pytest.approx(half, rel=0.25)
    assert change.value - change.low == pytest.approx(half, rel=0.25)
    assert changes(answers, None, answers, {"temperature": 4.0}, seed=3)[1] == change
    other = changes(answers, None, answers, {"temperature": 4.0}, seed=4)[1]
    assert other.value == change.value and (other.low, other.high) != (change.low, change.high)
    assert RESAMPLES >= 200


def test_the_same_answers_are_drawn_together_and_others_apart():
    """Where nothing changed, every draw of the same rows says so. Other rows are drawn by themselves: they vary."""
    answers = three_in_four(60, 4 * LN3)
    assert all((one.value, one.low, one.high) == (0.0, 0.0, 0.0) for one in changes(answers, None, answers, None, 0))
    apart = changes(answers, None, answers[:56], None, 0)
    assert all(one.low < 0.0 < one.high and one.n == 56 for one in apart)
