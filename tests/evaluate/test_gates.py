"""A gate that doing nothing, or breaking the model, can pass is not a gate."""

import json
import math

from engine.evaluate.gates import Limit, decide, gain
from engine.evaluate.measurement import Measurement, mean, rate
from engine.evaluate.retention import retention


def figures(*measurements):
    return {measurement.name: measurement for measurement in measurements}


def test_limits_are_inclusive_and_nan_passes_nothing():
    limits = {"kl": Limit(None, 0.1), "preference_gap": Limit(0.15, None)}
    results, missing = decide(limits, figures(Measurement("kl", 0.1, 5), Measurement("preference_gap", 0.15, 5)))
    assert [result.passed for result in results] == [True, True] and missing == []
    results, _ = decide(limits, figures(Measurement("kl", math.nan, 5), Measurement("preference_gap", math.inf, 5)))
    assert [result.passed for result in results] == [False, False]


def test_a_figure_that_nobody_measured_is_named_not_passed():
    results, missing = decide({"kl": Limit(None, 0.1)}, {})
    assert results == [] and missing == ["kl"]


def test_a_gain_needs_a_significant_change():
    limit = {"accuracy_gain": Limit(0.0, None)}
    before, same, better = rate("accuracy", 50, 100), rate("accuracy", 52, 100), rate("accuracy", 80, 100)
    for after, expected in ((before, False), (same, False), (better, True)):
        results, _ = decide(limit, figures(gain("accuracy", before, after)))
        assert [result.passed for result in results] == [expected]
        assert results[0].n == 100 and "->" in results[0].detail


def test_a_gain_of_exactly_nothing_fails():
    results, _ = decide({"share_gain": Limit(0.0, None)}, figures(Measurement("share_gain", 0.0, 10)))
    assert not results[0].passed


def test_retention_counts_able_tasks_only_and_names_the_worst():
    before = [rate("suite/add", 90, 100), rate("suite/copy", 100, 100), rate("suite/guess", 20, 100)]
    after = [rate("suite/add", 45, 100), rate("suite/copy", 100, 100), rate("suite/guess", 100, 100)]
    whole, worst = retention(before, after)
    assert whole.value == 0.75 and whole.n == 200
    assert worst.value == 0.5 and worst.detail["task"] == "add"


def test_retention_never_rewards_getting_better_and_says_nothing_about_chance():
    before = [rate("suite/add", 60, 100)]
    assert retention(before, [rate("suite/add", 100, 100)])[0].value == 1.0
    assert retention([rate("suite/add", 10, 100)], [rate("suite/add", 5, 100)]) == []


def test_measurements_survive_json_with_what_json_lacks():
    for one in (Measurement("loss", math.nan, 3), Measurement("perplexity", math.inf, 3), mean("gap", [1.0, 2.0])):
        back = Measurement.from_json(json.loads(json.dumps(one.to_json(), allow_nan=False)))
        assert str(back) == str(one)
