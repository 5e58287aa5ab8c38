"""Reward and its trend, advantage variance, correctness of answers and steps, by hand (design, section 5)."""

from __future__ import annotations

import json

import pytest

from engine.stages.rewarded import RewardEvaluation
from engine.stages.rlvr import StepEvaluation
from tests.stages.scripted import ScriptedPolicy, figures, stage_context

CHAIN = "Start with 12. Subtract 3. Double it. Subtract %d."
TRAIN = [{"prompt": f"Start with {n}. Add 1.", "answer": str(n + 1)} for n in range(20, 28)]
HELDOUT = [{"prompt": CHAIN % n, "answer": str(18 - n)} for n in (5, 6, 7, 8)]
STAGE = """
method: %s
    data: {source: train.jsonl, heldout: heldout.jsonl}
    steps: %d
    batch_size: 4
    group_size: 4
    max_new_tokens: 32
    evaluation: {max_new_tokens: 32, prompts: 8, samples: 0, loss_every: %d}
"""


@pytest.fixture
def evaluation(tmp_path):
    made = []

    def make(kind=RewardEvaluation, method="grpo", steps=16, every=4, heldout=HELDOUT, says=None, more=""):
        stage = STAGE.rstrip() % (method, steps, every) + more
        context = stage_context(tmp_path, stage, train=TRAIN, heldout=heldout)
        made.append(kind(context))
        made[-1].policy = ScriptedPolicy(says or (lambda *_: "answer 0."))
        return made[-1]

    yield make
    for one in made:
        one.verifier.close()


def rights(sampled, greedy=0):
    """The first ``sampled`` of the held-out prompts are answered rightly when sampled, the first ``greedy`` when not."""

    def says(prompt, temperature, turn):
        place = [row["prompt"] for row in HELDOUT].index(prompt)
        right = place < (sampled if temperature else greedy)
        return f"answer {HELDOUT[place]['answer'] if right else 0}."

    return says


# ---- reward and its trend ------------------------------------------------------------------------------------------


def test_the_reward_is_of_what_is_sampled_afresh_and_correctness_of_what_is_greedy(evaluation):
    one = evaluation(says=rights(1, greedy=2))
    was = figures(one.before())
    assert (was["reward"].value, was["reward"].n) == (0.25, 4)
    assert (was["final_correctness"].value, was["final_correctness"].n) == (0.5, 4)
    one.policy.says = rights(3, greedy=1)
    now = figures(one.after())
    assert (now["reward"].value, now["final_correctness"].value) == (0.75, 0.25)
    drawn = [seed for temperature, seed in one.policy.seeds if temperature]
    assert len(drawn) == len(set(drawn)) == 2


def test_a_completion_that_was_cut_counts_as_clipped(evaluation):
    one = evaluation(says=lambda prompt, temperature, turn: "answer 13." if "5" in prompt else "answer 13…")
    assert figures(one.before())["clipped_share"].value == 0.75


FORMED = """
    verifier:
      kind: sum
      template: "<a>{answer}</a>"
      components:
        - {verifier: {kind: number}, weight: 1}
        - {verifier: {kind: regex, pattern: "<a>.*</a>"}, weight: 3}
"""


def test_correctness_is_of_the_answer_alone_whatever_else_is_rewarded(evaluation):
    """A right answer in the wrong form has a quarter of the reward and is right; a wrong one in the right form has three
    quarters and is wrong. Of four answers, each kind once, all right once, and all wrong once."""
    texts = dict(zip((row["prompt"] for row in HELDOUT), ("it is 13", "<a>0</a>", "<a>11</a>", "0"), strict=True))
    one = evaluation(says=lambda prompt, temperature, turn: texts[prompt], more=FORMED)
    found = figures(one.before())
    assert found["reward"].value == pytest.approx((0.25 + 0.75 + 1 + 0) / 4)
    assert found["final_correctness"].detail["successes"] == 2


@pytest.mark.parametrize(
    "rewards, p",
    [
        # right answers of four: before, at steps 4, 8 and 12, after. p: orders of five with at most as many falls, of 120
        ((0, 1, 2, 3, 4), 1 / 120),
        ((1, 0, 2, 3, 4), 5 / 120),
        ((0, 3, 2, 1, 4), 29 / 120),  # the ends alone would rise
        ((4, 3, 2, 1, 0), 1.0),
        ((2, 2, 2, 2, 2), 1.0),  # a tie is no rise
        ((0, 0, 0, 0, 4), (120 - 29) / 120),  # six ties: all orders but those with 7 to 10 falls, 15 + 9 + 4 + 1
    ],
)  # fmt: skip
def test_the_trend_is_over_every_point_in_the_order_of_the_steps(rewards, p, evaluation):
    one = evaluation()
    one.policy.says = rights(rewards[0])
    one.before()
    for step in range(1, 16):
        if step % 4 == 0:
            one.policy.says = rights(rewards[step // 4])
        one.during(step)
    one.policy.says = rights(rewards[4])
    measured = one.after()
    trend = figures(one.derived(measured))["reward_trend"]
    assert (trend.value, trend.n) == (pytest.approx(p), 5)
    gates = {result.name: result.passed for result in one.gates(measured)[0]}
    assert gates["reward_trend"] is (p <= 0.05)


def test_two_points_are_no_trend(evaluation):
    """From nothing right to all right, and nothing in between: the best there is proves nothing."""
    one = evaluation(steps=2, every=50, says=rights(0))
    one.before()
    one.during(1)
    one.policy.says = rights(4, greedy=4)
    measured = one.after()
    trend = figures(one.derived(measured))["reward_trend"]
    assert (trend.value, trend.n) == (1.0, 2)
    assert not {result.name: result.passed for result in one.gates(measured)[0]}["reward_trend"]


# ---- advantage variance --------------------------------------------------------------------------------------------


def test_the_advantage_variance_is_of_the_steps_before_the_task_is_solved(evaluation, tmp_path):
    """Under 0.9: 0.8 and 0.4, 0.6 in the mean. At 0.9 and above the groups fall silent: those steps do not count."""
    one = evaluation(says=rights(0))
    one.before()
    for step, (reward, variance) in enumerate([(0.2, 0.8), (0.89, 0.4), (0.9, 0.3), (0.99, 0.0), (1.0, 0.0)], start=1):
        one.remember(step, {"reward": reward, "advantage_variance": variance, "kl": 7.0})
    one.remember(6, {"loss": 0.1, "reward": 0.1})  # a step that trains on answers of an earlier one tells no variance
    found = figures(one.derived(one.after()))["advantage_variance"]
    assert (found.value, found.n) == (pytest.approx(0.6), 2)
    one.save_history(tmp_path)
    again = evaluation()
    again.load_history(tmp_path)
    assert again.history == one.history and again.history[1] == {"reward": 0.2, "advantage_variance": 0.8}


@pytest.mark.parametrize("variances, passes", [((0.5, 0.5), True), ((0.6, 0.38), False), ((0.0, 0.0), False)])
def test_groups_that_do_not_disagree_fail_the_gate(variances, passes, evaluation):
    one = evaluation(says=rights(0))
    one.before()
    for step, variance in enumerate(variances, start=1):
        one.remember(step, {"reward": 0.5, "advantage_variance": variance})
    gates = {result.name: result.passed for result in one.gates(one.after())[0]}
    assert gates["advantage_variance"] is passes and gates["verifiability"]


def test_a_task_that_was_solved_from_the_first_step_on_has_no_variance_to_show(evaluation):
    one = evaluation(says=rights(0))
    one.before()
    measured = one.after()
    for step in (1, 2):
        one.remember(step, {"reward": 0.95, "advantage_variance": 0.1})
    results, missing = one.gates(measured)
    assert "advantage_variance" not in missing and "advantage_variance" not in {result.name for result in results}
    one.remember(3, {"reward": 0.85})  # unsolved, and nobody told its variance: that is no excuse
    assert "advantage_variance" in one.gates(measured)[1]
    one.remember(3, {"reward": 0.85, "advantage_variance": 0.1})
    (gate,) = (result for result in one.gates(measured)[0] if result.name == "advantage_variance")
    assert (gate.value, gate.n, gate.passed) == (0.1, 1, False)


# ---- correctness of steps ------------------------------------------------------------------------------------------

FREE = "Anna has 12 apples, gives away 3 and doubles the rest. How many has she after she eats 6?"
STEPS = [
    # completion, its answer is right, accepted required steps ÷ max(required, emitted)
    ("12 - 3 = 9; 9 * 2 = 18; 18 - %(n)s = %(r)s; answer %(r)s.", True, 3 / 3),
    ("12 - 3 = 9; 9 * 2 = 18; 18 - %(n)s = %(r)s; 12 - 3 = 9; 9 * 2 = 18; 9 + 3 = 12; answer %(r)s.", True, 3 / 6),
    ("12 - 3 = 9; answer %(r)s.", True, 1 / 3),  # two of three are missing
    ("answer %(r)s.", True, 0 / 3),
    ("12 - 3 = 9; 9 * 2 = 18; 18 - %(n)s = 0; answer 0.", False, 2 / 3),
    ("12 - 3 = 10; 10 * 2 = 20; 20 - %(n)s = 1; answer 1.", False, 0 / 3),  # all built on an error
    ("", False, 0 / 3),
]


def test_steps_and_answers_count_by_themselves(evaluation):
    heldout = [{"prompt": CHAIN % n, "answer": str(18 - n)} for n in range(4, 4 + len(STEPS))]
    says = {CHAIN % n: text % {"n": n, "r": 18 - n} if text else "" for n, (text, *_) in enumerate(STEPS, start=4)}
    # In a free problem the row says how many steps are required: one of three is missing here.
    free = json.dumps({"answer": "12", "required": 3})
    heldout.append({"prompt": FREE, "answer": free})
    says[FREE] = "12 - 3 = 9; 9 * 2 = 18; answer 12."
    one = evaluation(
        StepEvaluation, "rlvr", heldout=heldout,
        says=lambda prompt, temperature, turn: "" if temperature else says[prompt],
    )  # fmt: skip
    found = figures(one.before())
    shares, right = [share for *_, share in STEPS] + [2 / 3], sum(right for _, right, _ in STEPS) + 1
    assert found["step_correctness"].n == found["final_correctness"].n == len(STEPS) + 1
    assert found["step_correctness"].value == pytest.approx(sum(shares) / len(shares))
    assert found["final_correctness"].detail["successes"] == right == 5
    assert found["reward"].value == 0.0  # what is sampled says nothing


@pytest.mark.parametrize("place", range(len(STEPS)))
def test_padding_loses_and_what_is_missing_loses(place, evaluation):
    text, right, share = STEPS[place]
    one = evaluation(
        StepEvaluation, "rlvr", heldout=HELDOUT[1:2], says=lambda *_: text % {"n": 6, "r": 12} if text else ""
    )
    found = figures(one.before())
    assert found["step_correctness"].value == pytest.approx(share)
    assert found["final_correctness"].value == right
    gates = {result.name: result.passed for result in one.gates(one.after())[0]}
    assert gates == {"step_correctness": share >= 0.8, "final_correctness": right}
