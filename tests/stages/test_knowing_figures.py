"""What is known, and what abstaining is worth: recall, precision, accuracy kept, hallucinations, by hand (design, section 5)."""

from __future__ import annotations

import math

import pytest

from engine.evaluate.gates import Limit, decide
from engine.stages.anti_hallucination import KnowingEvaluation, knowing, known_to, training_rows
from engine.stages.questions import Answer
from tests.stages.scripted import ScriptedPolicy, figures, stage_context

LN3 = math.log(3)
ABSTAINS = "I do not know."
STAGE = """
method: anti_hallucination
    data: {source: train.jsonl, heldout: heldout.jsonl}
    steps: 4
    samples: %d
    replay: {share: 0.0}
    evaluation: {max_new_tokens: 8, prompts: 8, samples: 0}
"""


def table(rows: str):
    """``known``, ``answers`` and ``abstained`` of rows such as "K+": known (K) or unknown (U), and answered rightly (+),
    wrongly (-), or not at all (.)."""
    found = rows.split()
    answers = [Answer("x", row[1] == "+", 1, ()) for row in found]
    return [row[0] == "K" for row in found], answers, [row[1] == "." for row in found]


@pytest.mark.parametrize(
    "rows, recall, precision, accuracy, hallucination",
    [
        # recall: abstained ÷ unknown; precision: unknown ÷ abstained; accuracy: right ÷ known; wrong ÷ answered
        ("K+ K+ K+ K. K- U. U. U. U-", (3, 4), (3, 4), (3, 5), (2, 5)),
        (
            "K+ K+ K. K. K. K. U. U+",
            (1, 2),
            (1, 5),
            (2, 6),
            (0, 3),
        ),  # by luck right on what it does not know: not wrong
        ("K+ K- U- U-", (0, 2), None, (1, 2), (3, 4)),  # it never abstains: nothing to be precise about
        ("K. K. U.", (1, 1), (1, 3), (0, 2), (0, 0)),  # it always does
        ("K+ K+ K.", (0, 0), (0, 1), (2, 3), (0, 2)),  # nothing is unknown
        ("U. U- U-", (1, 3), (1, 1), (0, 0), (2, 2)),  # nothing is known
    ],
)
def test_the_four_rates(rows, recall, precision, accuracy, hallucination):
    measured = figures(knowing(*table(rows)))
    for name, wanted in (
        ("abstention_recall", recall), ("abstention_precision", precision), ("accuracy_known", accuracy),
        ("hallucination_rate", hallucination),
    ):  # fmt: skip
        if wanted is None:
            assert name not in measured
            continue
        one, (part, whole) = measured[name], wanted
        assert (one.detail["successes"], one.n) == (part, whole), name
        assert one.value == pytest.approx(part / whole) if whole else math.isnan(one.value), name


@pytest.mark.parametrize("rows, failing", [("K+ U-", "abstention_recall"), ("K+ K.", "abstention_recall")])
def test_a_rate_of_nothing_passes_no_gate(rows, failing):
    """Neither who never abstains passes, nor does anyone where there is nothing to abstain on."""
    limits = {"abstention_recall": Limit(0.8, None), "accuracy_known": Limit(0.0, None)}
    results, _ = decide(limits, figures(knowing(*table(rows))))
    assert [result.name for result in results if not result.passed] == [failing]


# ---- what is known -------------------------------------------------------------------------------------------------

TOWNS = "Where is %s from?"


def asked(*names, answer="Tarn"):
    return [{"prompt": TOWNS % name, "answer": answer} for name in names]


def stage(tmp_path, heldout, train=None, samples=4):
    context = stage_context(tmp_path, STAGE % samples, train=train or asked("Zoe"), heldout=heldout)
    evaluation = KnowingEvaluation(context)
    return context, evaluation


def name_in(prompt):
    return prompt.removeprefix("Where is ").removesuffix(" from?")


@pytest.mark.parametrize(
    "samples, answers, known",
    [
        (4, "+++++", True),
        (4, "+++--", True),
        (4, "--+++", True),  # greedy wrong, and yet at least half
        (4, "++---", False),
        (4, "+----", False),
        (3, "+--+", True),  # exactly half
        (3, "+---", False),
        (1, "+-", True),
        (1, "--", False),
        (0, "+", True),
        (0, "-", False),
        (4, "ccccc", False),  # the right word, cut before its end
        (4, "+++ww", True),
        (4, "++www", False),  # the right word within others
    ],
)
def test_known_is_what_at_least_half_of_its_answers_get_right(samples, answers, known, tmp_path):
    says = {"+": "Tarn.", "-": "Bree.", "c": "Tarn.…", "w": "Tarn or Bree."}

    def say(prompt, temperature, turn):
        return says[answers[1 + turn if temperature else 0]]

    context, evaluation = stage(tmp_path, asked("Ada"), samples=samples)
    policy = ScriptedPolicy(say)
    assert known_to(context, policy, evaluation.heldout, "known-heldout") == [known]
    assert [temperature for temperature, _ in policy.seeds] == [0.0] + [1.0] * samples
    assert len({seed for _, seed in policy.seeds}) == samples + 1  # each is drawn afresh


def test_what_has_no_answer_is_never_known_and_nothing_is_asked_twice(tmp_path):
    context, evaluation = stage(tmp_path, [*asked("Ada"), *asked("Nobody", answer=None)])
    policy = ScriptedPolicy(lambda prompt, temperature, turn: "Tarn." if "Ada" in prompt else "")
    assert known_to(context, policy, evaluation.heldout, "known-heldout") == [True, False]
    policy.says = lambda prompt, temperature, turn: "Bree."
    assert known_to(context, policy, evaluation.heldout, "known-heldout") == [True, False]  # fixed before training
    assert len(policy.seeds) == 5


def test_the_known_is_taught_with_its_answer_and_the_rest_with_the_abstention(tmp_path):
    context, evaluation = stage(tmp_path, asked("Ada"), [*asked("Kim", "Udo"), *asked("Nobody", answer=None)])
    policy = ScriptedPolicy(lambda prompt, temperature, turn: "Tarn." if "Kim" in prompt else "Bree.")
    rows = training_rows(context, policy, evaluation.questions)
    taught = {name_in(row[0]["content"]): row[-1]["content"] for row in rows}
    assert taught == {"Kim": "Tarn", "Udo": ABSTAINS, "Nobody": ABSTAINS}


# ---- before and after ----------------------------------------------------------------------------------------------

KNOWN, UNKNOWN = ("Ada", "Bob", "Cleo", "Dan", "Eve"), ("Udo", "Vera")
HELDOUT = [*asked(*KNOWN, *UNKNOWN, "Will"), *asked("Nobody", answer=None)]
TRAIN = asked("Kim", "Leo", "Max", "Noa", "Oda")


def before(prompt, temperature, turn):
    """Eve is known with three of five; Udo, though right when greedy, with two; Vera's right answers are cut."""
    name = name_in(prompt)
    if name == "Eve":
        return "Tarn." if not temperature or turn < 2 else "Bree."
    if name == "Udo":
        return "Tarn." if not temperature or turn < 1 else "Bree."
    return {"Vera": "Tarn.…", "Will": "Bree.", "Nobody": "Bree."}.get(name, "Tarn.")


def after(prompt, temperature, turn):
    """Three of the five known are still right, one is wrong, one is withheld; three of the four unknown are withheld, in
    three ways. Of what it trained on, it withholds one, and has three of the other four right."""
    return {
        "Dan": ABSTAINS, "Eve": "Bree.", "Udo": ABSTAINS, "Vera": "i do not  know", "Nobody": "Bree? I do not know.",
        "Will": "Bree.", "Noa": "Bree.", "Oda": ABSTAINS,
    }.get(name_in(prompt), "Tarn.")  # fmt: skip


def through(tmp_path, then):
    """The evaluation before, and what is found after a training that makes it say ``then``."""
    context, evaluation = stage(tmp_path, HELDOUT, TRAIN)
    evaluation.policy = ScriptedPolicy(before)
    evaluation.policy.gap = 4 * LN3
    was = figures(evaluation.before())
    evaluation.policy.says = then
    evaluation.policy.asked.clear()
    measured = evaluation.after()
    results, missing = evaluation.gates(measured)
    found = was, figures([*measured, *evaluation.derived(measured)])
    return *found, {result.name: result.passed for result in results}, missing


def test_the_figures_of_a_stage_by_hand(tmp_path):
    was, now, gates, missing = through(tmp_path, after)
    assert (
        was["abstention_recall"].value == 0.0 and was["abstention_recall"].n == 4 and "abstention_precision" not in was
    )
    assert was["accuracy_known"].value == 1.0 and was["accuracy_known"].n == 5
    assert was["hallucination_rate"].value == pytest.approx(3 / 9)  # greedy: Vera (cut), Will, Nobody
    assert (now["abstention_recall"].value, now["abstention_recall"].n) == (0.75, 4)
    assert (now["abstention_precision"].value, now["abstention_precision"].n) == (0.75, 4)
    assert (now["accuracy_known"].value, now["accuracy_kept"].value) == (0.6, 0.6)
    assert (now["hallucination_rate"].value, now["hallucination_rate"].n) == (0.4, 5)
    # Confidence. Before: 81/82 for nine answers, six of them right, each a bin of its own. The fit is on what it still
    # answers of its training questions, three right in four: 3/4, for the five that it still answers, three of them right.
    ece_before, ece_after = (6 * (1 / 82) + 3 * (81 / 82)) / 9, (3 * 0.25 + 2 * 0.75) / 5
    brier_before, brier_after = (6 * (1 / 82) ** 2 + 3 * (81 / 82) ** 2) / 9, (3 * 0.25**2 + 2 * 0.75**2) / 5
    assert (was["ece"].value, was["ece"].n) == (pytest.approx(ece_before), 9)
    assert (now["ece"].value, now["ece"].n) == (pytest.approx(ece_after), 5)
    assert now["ece_cut"].value == pytest.approx(1 - ece_after / ece_before)
    assert now["brier_change"].value == pytest.approx(brier_after - brier_before)
    assert gates == {
        "abstention_recall": False, "abstention_precision": False, "accuracy_kept": False, "ece_cut": False,
        "brier_change": True,
    } and not missing  # fmt: skip


def test_who_learns_it_passes(tmp_path):
    """Right on all known; Vera, Will and Nobody withheld and Udo too. Of what it trained on it has all right: temperature
    1/4, and so all but sure of five answers that are all right."""

    def learned(prompt, temperature, turn):
        return "Tarn." if name_in(prompt) in (*KNOWN, "Kim", "Leo", "Max", "Noa", "Oda") else ABSTAINS

    _, now, gates, missing = through(tmp_path, learned)
    assert [now[name].value for name in ("abstention_recall", "abstention_precision", "accuracy_kept")] == [1.0] * 3
    assert now["hallucination_rate"].value == 0.0 and now["ece"].value == pytest.approx(3**-16, rel=1e-3)
    assert all(gates.values()) and len(gates) == 5 and not missing


@pytest.mark.parametrize(
    "then, failing",
    [
        # nothing was learned, and there is nothing to be precise about; as all that it trained on is right, it is surer still
        (before, {"abstention_recall", "abstention_precision", "ece_cut", "brier_change"}),
        # it says nothing any more, and so nothing has a confidence
        (lambda *_: ABSTAINS, {"abstention_precision", "accuracy_kept", "ece_cut", "brier_change"}),
        # it is broken: all is wrong, and the temperature of 32 that says so leaves an error of more than a half
        (lambda *_: "Tarn Tarn", {"abstention_recall", "abstention_precision", "accuracy_kept", "ece_cut"}),
    ],
)
def test_doing_nothing_saying_nothing_and_breaking_do_not_pass(then, failing, tmp_path):
    *_, gates, missing = through(tmp_path, then)
    assert failing == {name for name, passed in gates.items() if not passed} | set(missing)


def test_what_was_known_and_is_not_answered_rightly_before_cannot_be_kept(tmp_path):
    """Known by its samples but wrong when greedy: no accuracy to keep, and no gate that passes."""
    context, evaluation = stage(tmp_path, asked("Ada"))
    evaluation.policy = ScriptedPolicy(lambda prompt, temperature, turn: "Tarn." if temperature else "Bree.")
    evaluation.before()
    evaluation.policy.says = lambda *_: "Tarn."
    kept = figures(evaluation.derived(evaluation.after()))["accuracy_kept"]
    assert kept.value == 0.0 and kept.n == 1
