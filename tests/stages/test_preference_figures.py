"""The preference gap, the preferred and the broken share, and the length ratio, by hand (design, section 5)."""

from __future__ import annotations

import pytest

from engine.evaluate.preference import GAP_BETA, preference_gap
from engine.stages.preference import PreferenceEvaluation
from tests.stages.scripted import ScriptedPolicy, figures, stage_context

JUDGE = "preferred: Lovely( and warm)*\\.\nrejected: It is a thing\\.\n"
NAMES = ("Oak", "Elm", "Ash", "Fir")
PAIRS = [{"prompt": f"How is the {name}?", "chosen": f"Lovely {name}", "rejected": f"Thing {name}"} for name in NAMES]
STAGE = """
method: %s
    data: {source: train.jsonl, heldout: heldout.jsonl}
    steps: 4
    %s
    evaluation: {max_new_tokens: 8, prompts: %d, samples: 0}
"""
START = {"Lovely Oak": -10.0, "Thing Oak": -4.0, "Lovely Elm": -12.0, "Thing Elm": -6.0} | {
    f"{word} {name}": -8.0 for word in ("Lovely", "Thing") for name in ("Ash", "Fir")
}
NOW = {
    "Lovely Oak": -7.0, "Thing Oak": -5.0,  # (+3) - (-1) = 4
    "Lovely Elm": -13.0, "Thing Elm": -9.0,  # (-1) - (-3) = 2: both fell, the rejected one more
    "Lovely Ash": -9.0, "Thing Ash": -6.0,  # (-1) - (+2) = -3
    "Lovely Fir": -5.0, "Thing Fir": -5.0,  # (+3) - (+3) = 0: both rose alike
}  # fmt: skip


def said(texts):
    """Each prompt's completions in turn; what is sampled, never what is greedy."""
    return lambda prompt, temperature, turn: texts[turn % len(texts)] if temperature else "Lovely."


def through(tmp_path, method="dpo", judge=True, prompts=8, start=START, now=NOW, before=("It is a thing.",), after=()):
    (tmp_path / "judge.yaml").write_text(JUDGE)
    more = "judge: judge.yaml" if judge else "learning_rate: 0.0001"
    rows = [{**pair, "prompt": pair["prompt"] + " Say."} for pair in PAIRS * 2]
    context = stage_context(tmp_path, STAGE % (method, more, prompts), train=rows, heldout=PAIRS)
    evaluation = PreferenceEvaluation(context)
    policy = evaluation.policy = ScriptedPolicy(said(before))
    policy.logprobs, policy.apart = dict(start), {"start": lambda text: 0.0}
    was = figures(evaluation.before())
    policy.says = said(after or before)
    policy.logprobs = dict(now)
    policy.asked.clear()
    measured = evaluation.after()
    results, missing = evaluation.gates(measured)
    found = figures([*measured, *evaluation.derived(measured)])
    return was, found, {result.name: result.passed for result in results}, missing


@pytest.mark.parametrize("method, more", [("dpo", "beta: 0.5"), ("orpo", "odds_weight: 0.3"), ("cpo", "beta: 5.0")])
def test_the_gap_is_the_mean_log_ratio_difference_times_a_tenth_whatever_is_trained_with(method, more, tmp_path):
    """(4 + 2 - 3 + 0) / 4 = 0.75 nats."""
    (tmp_path / "judge.yaml").write_text(JUDGE)
    context = stage_context(
        tmp_path, STAGE % (method, more, 4), train=[{**pair, "prompt": "Say."} for pair in PAIRS], heldout=PAIRS
    )
    evaluation = PreferenceEvaluation(context)
    policy = evaluation.policy = ScriptedPolicy(said(["Lovely."]))
    policy.logprobs = dict(START)
    assert "preference_gap" not in figures(evaluation.before())
    policy.logprobs = dict(NOW)
    now = figures(evaluation.after())
    assert (now["preference_gap"].value, now["preference_gap"].n) == (pytest.approx(0.075), 4)
    assert (now["preference_accuracy"].value, now["preference_accuracy"].n) == (0.5, 4)  # no difference is not right


def test_who_prefers_the_rejected_has_the_gap_with_the_other_sign(tmp_path):
    """Chosen and rejected exchange their changes: -0.75 nats. At the start nothing is apart."""
    turned = {}
    for name in NAMES:
        good, bad = f"Lovely {name}", f"Thing {name}"
        turned |= {good: START[good] + NOW[bad] - START[bad], bad: START[bad] + NOW[good] - START[good]}
    _, now, gates, _ = through(tmp_path, now=turned)
    assert now["preference_gap"].value == pytest.approx(-0.075) and now["preference_accuracy"].value == 0.25
    assert not gates["preference_gap"]


def test_a_stage_that_does_nothing_has_no_gap_and_passes_neither_gate(tmp_path):
    was, now, gates, missing = through(tmp_path, now=START)
    assert now["preference_gap"].value == now["preference_accuracy"].value == 0.0
    assert now["preferred_share"].value == was["preferred_share"].value == 0.0
    assert {name for name, passed in gates.items() if not passed} == {"preference_gap", "preferred_share_gain"}
    assert now["kl"].value == 0.0 and not missing


def test_the_gaps_interval_is_that_of_its_mean():
    """0.1 * (4, 2, -3, 0): mean 0.075, deviation 0.1 * √(26.75 / 3), over √4."""
    gap = figures(preference_gap([4.0, 2.0, -3.0, 0.0]))["preference_gap"]
    half = 1.959964 * 0.1 * (26.75 / 3) ** 0.5 / 2
    assert GAP_BETA == 0.1 and (gap.low, gap.high) == (pytest.approx(0.075 - half), pytest.approx(0.075 + half))


# ---- what it writes ------------------------------------------------------------------------------------------------


def test_shares_of_what_is_sampled(tmp_path):
    """Four prompts, each answered five times: of twenty, eight preferred, four rejected, eight broken (four cut, four that
    begin well and end in garbage)."""
    after = ["Lovely and warm.", "Lovely.…", "Lovely. Lovely. Oak", "It is a thing.", "Lovely."]
    _, now, gates, _ = through(tmp_path, prompts=20, before=["It is a thing.", "Lovely."], after=after)
    assert (now["preferred_share"].value, now["preferred_share"].n) == (0.4, 20)
    assert (now["broken_share"].value, now["broken_share"].n) == (0.4, 20)
    assert not gates["broken_share"] and not gates["preferred_share_gain"]


@pytest.mark.parametrize("broken, passes", [(0, True), (1, True), (2, False)])
def test_at_most_one_in_twenty_may_be_broken(broken, passes, tmp_path):
    """Of twenty, all preferred but those: from 0 to 18 and more of 20 is a significant gain."""
    answers = ["", ""][:broken] + ["Lovely and warm."] * (20 - broken)
    sampled = iter(["It is a thing."] * 20 + answers)
    (tmp_path / "judge.yaml").write_text(JUDGE)
    context = stage_context(
        tmp_path, STAGE % ("dpo", "judge: judge.yaml", 20), train=[{**PAIRS[0], "prompt": "Say."}], heldout=PAIRS[1:]
    )
    evaluation = PreferenceEvaluation(context)
    policy = evaluation.policy = ScriptedPolicy(lambda prompt, temperature, turn: next(sampled))
    policy.logprobs = dict(START)
    evaluation.before()
    measured = evaluation.after()
    gates = {result.name: result.passed for result in evaluation.gates(measured)[0]}
    assert figures(measured)["broken_share"].value == broken / 20
    assert gates["broken_share"] is passes and gates["preferred_share_gain"]


def test_without_a_judge_no_share_is_measured_and_that_is_said(tmp_path):
    _, now, gates, missing = through(tmp_path, judge=False)
    assert not {"preferred_share", "broken_share", "preferred_share_gain"} & set(now)
    assert set(gates) == {"preference_gap", "length_ratio", "kl"} and not missing


@pytest.mark.parametrize(
    "before, after, ratio, passes",
    [
        # a token for each word and one for the end, which a completion that was cut does not have
        (["a b c"], ["a b c"], 1.0, True),
        (["a b c"], ["a b c d"], 5 / 4, True),
        (["a b c"], ["a b"], 3 / 4, True),
        (["a b c", "a"], ["a b c d"], 5 / 3, False),  # 4 and 2: 3 in the mean
        (["a b c d e f g"], ["a b c", "a…"], (4 + 1) / 2 / 8, False),
    ],
)
def test_the_length_is_that_of_what_is_sampled_against_the_start(before, after, ratio, passes, tmp_path):
    was, now, gates, _ = through(tmp_path, before=before, after=after)
    one = now["length_ratio"]
    assert (one.value, one.n) == (pytest.approx(ratio), 8) and gates["length_ratio"] is passes
    assert one.detail["before"] == was["completion_length"].value


def test_every_token_weighs_alike_in_the_divergence(tmp_path):
    """Two tokens 0.2 nats apart and four 0.05: 0.6 nats over six tokens, 0.3 a sequence; not the sequences' mean of 0.125.

    The interval is a ratio's: what the sequences are off, 0.4 - 2 * 0.1 and 0.2 - 4 * 0.1, is 0.2 either way; √(2 * 0.08) / 6.
    """
    context = stage_context(
        tmp_path, STAGE % ("dpo", "beta: 0.1", 2), train=[{**PAIRS[0], "prompt": "Say."}], heldout=PAIRS[:2]
    )
    evaluation = PreferenceEvaluation(context)
    policy = evaluation.policy = ScriptedPolicy(lambda prompt, *_: "a" if "Oak" in prompt else "a b c")
    policy.logprobs = dict(START)
    policy.apart = {"start": lambda text: 0.2 if text == "a" else 0.05, "base": lambda text: 0.03}
    evaluation.before()
    measured = evaluation.after()
    now = figures(measured)
    assert (now["kl"].value, now["kl"].n, now["kl"].detail["tokens"]) == (pytest.approx(0.1), 2, 6)
    assert now["kl_sequence"].value == pytest.approx(0.3) and now["kl_base"].value == pytest.approx(0.03)
    assert (now["kl"].low, now["kl"].high) == pytest.approx((0.0, 0.1 + 1.959964 * 0.4 / 6))
    assert (now["kl_base"].low, now["kl_base"].high) == pytest.approx((0.03, 0.03))  # every token alike
