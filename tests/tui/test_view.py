"""What the screens show, as pure functions: averages, windows, plots, pictures, warning signs, forecast against actual."""

from __future__ import annotations

import math
import random

import pytest

from engine.evaluate.warning_signs import STEPS, warning_signs
from engine.runs.events import (
    AlertEvent,
    GateEvent,
    HeartbeatEvent,
    MetricEvent,
    RunEvent,
    SampleEvent,
    StageEvent,
    StepEvent,
)
from engine.runs.state import KEPT_SAMPLES, RunState
from tui.eta import Eta
from tui.view.answers import answers_over_time, earlier_choices
from tui.view.canvas import Scale, x_labels, y_labels
from tui.view.comparison import Compared, compare, differences, overlay, short_labels
from tui.view.conditions import Surroundings, conditions_of
from tui.view.gauges import Look
from tui.view.pictures import Tried, draw_front, draw_reliability, front_of
from tui.view.plot import Line, plot
from tui.view.run_view import view_of
from tui.view.series import moving_average, part

NAN = math.nan


def rows_of(picture):
    return ["".join(text for text, _ in row) for row in picture]


def roles_of(picture):
    return {role for row in picture for _, role in row}


def state_of(*events, method="dpo", steps=100, gates=None):
    stages = [{"method": method, "steps": steps, "gates": gates or {}}]
    created = RunEvent(state="created", time=1.0, detail={"name": "x", "stages": stages})
    begun = [
        RunEvent(state="running", time=2.0),
        StageEvent(state="started", method=method, stage=0, time=3.0, steps_total=steps),
    ]
    return RunState().apply_all([created, *begun, *events])


def steps_of(columns, start=1, total=100):
    """Step events from gauges' columns."""
    return [
        StepEvent(stage=0, step=number, total=total, time=10.0 + number, values=dict(zip(columns, values, strict=True)))
        for number, values in enumerate(zip(*columns.values(), strict=True), start=start)
    ]


# ---- series --------------------------------------------------------------------------------------------------------------


def test_the_average_is_debiased_from_the_first_value_on():
    assert moving_average([5.0] * 10, 0.9) == pytest.approx([5.0] * 10)
    first, second = moving_average([1.0, 3.0], 0.5)
    assert first == pytest.approx(1.0) and second == pytest.approx((0.25 * 1 + 0.5 * 3) / 0.75)


def test_what_is_not_a_number_is_a_gap_and_does_not_move_the_average():
    whole = moving_average([1.0, 2.0, 3.0], 0.8)
    holed = moving_average([1.0, NAN, 2.0, math.inf, 3.0], 0.8)
    assert [value for value in holed if math.isfinite(value)] == pytest.approx(whole)
    assert math.isnan(holed[1]) and math.isnan(holed[3])


def test_a_long_average_is_that_of_its_definition():
    draw = random.Random(0)
    for holes in (0.0, 0.1):
        values = [NAN if draw.random() < holes else draw.gauss(0, 1) for _ in range(800)]
        average, n, wanted = 0.0, 0, []
        for value in values:
            if math.isfinite(value):
                average, n = 0.6 * average + (1 - 0.6) * value, n + 1
            wanted.append(average / (1 - 0.6**n) if math.isfinite(value) else NAN)
        assert moving_average(values, 0.6) == pytest.approx(wanted, rel=1e-12, nan_ok=True)


def test_a_weight_outside_of_its_range_is_refused():
    with pytest.raises(ValueError):
        moving_average([1.0], 1.0)


def test_a_part_of_a_long_series_is_thinned_to_what_can_be_shown():
    steps, values = list(range(1, 10_001)), [float(step) for step in range(1, 10_001)]
    found_steps, found_values = part(steps, values, 5_001, 6_000, 100)
    assert len(found_steps) == 100 and found_steps[-1] == 6_000
    assert found_values[0] == pytest.approx(sum(range(5_001, 5_011)) / 10)
    assert part(steps, values, 9_991, 10_000, 100) == (steps[-10:], values[-10:])
    assert part(steps, [NAN] * 10_000, 1, 10, 2)[1] != []


# ---- plots ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(60, 20), (12, 3), (7, 3), (200, 60), (40, 2)])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_every_row_is_as_wide_as_was_asked_for(size, ascii_only):
    width, height = size
    values = [math.exp(-step / 30) for step in range(100)]
    lines = [Line(range(100), values, "raw", joined=False), Line(range(100), moving_average(values, 0.9))]
    rows = rows_of(plot(lines, width, height, targets=[0.1], ascii_only=ascii_only))
    assert len(rows) == height and {len(row) for row in rows} == {width}
    assert not ascii_only or all(row.isascii() for row in rows)


def test_a_gap_is_not_bridged_and_is_marked():
    def drawn(values):
        return rows_of(plot([Line(range(1, len(values) + 1), values)], 46, 6, ascii_only=True))

    whole, holed = drawn([1.0] * 40 + [2.0]), drawn([1.0] * 15 + [NAN] * 10 + [1.0] * 15 + [2.0])
    assert "!" in holed[0] and "!" not in whole[0]
    assert "*" * 30 in whole[4] and "*" * 20 not in holed[4]


def test_a_log_scale_shows_decades_and_leaves_out_what_it_cannot_show():
    steps = range(1, 56)
    rows = rows_of(plot([Line(steps, [10.0 ** (-step / 10) for step in steps])], 60, 20, log=True, ascii_only=True))
    assert {"0.1", "0.001"} <= {row.split()[0] for row in rows[:-1] if row[0] != " " or row.split()}
    columns = {row.index("*") for row in rows[:-1] if "*" in row}
    assert len(columns) >= 15, "a straight line down, not a cliff"
    assert "nothing above 0 (log scale)" in "".join(rows_of(plot([Line([1, 2], [0.0, -1.0])], 60, 5, log=True)))


def test_a_target_is_drawn_where_it_is_near_and_left_out_where_it_would_flatten_the_line():
    near = plot([Line(range(50), [1.0 + 0.01 * step for step in range(50)])], 40, 8, targets=[1.2])
    far = plot([Line(range(50), [1.0 + 0.01 * step for step in range(50)])], 40, 8, targets=[500.0])
    assert "target" in roles_of(near) and "target" not in roles_of(far)


def test_lines_of_several_runs_have_a_sign_each():
    lines = [
        Line(range(50), [float(step) for step in range(50)], "series-0", marker="o"),
        Line(range(50), [50.0 - step for step in range(50)], "series-1", marker="x"),
    ]
    text = "".join(rows_of(plot(lines, 60, 12)))
    assert text.count("o") >= 4 and text.count("x") >= 4


def test_labels_do_not_touch():
    for high in (2.0, 440.0, 99_999.0):
        for width in (20, 40, 120):
            labels = sorted(x_labels(Scale(1, high), width).items())
            for (place, text), (following, _) in zip(labels, labels[1:], strict=False):
                assert place + len(text) < following
    rows = sorted(y_labels(Scale(0.0, 7.53), 20))
    assert all(after - before >= 3 for before, after in zip(rows, rows[1:], strict=False))


# ---- pictures ------------------------------------------------------------------------------------------------------------


def test_the_front_of_a_search_and_its_pick_live_and_final():
    columns = {
        "kl": [0.5, 0.1, 0.2, math.inf, 0.05],
        "refusal_rate": [0.0, 0.4, 0.005, 1.0, 0.9],
        "dropped": [0, 0, 0, 1, 0],
    }
    running = state_of(*steps_of(columns), method="abliteration")
    front = view_of(running, "running", Eta(), 20.0).pictures.front
    assert [trial.number for trial in front.best] == [4, 1, 2, 0]
    assert front.picked == 2 and not front.final and "would pick trial 2" in front.words
    table = {"says": "", "table": [{"trial": 0, "picked": "yes"}, {"trial": 2, "picked": ""}]}
    running.apply(MetricEvent(stage=0, name="pareto_front", value=4, n=5, step=5, when="after", detail=table))
    front = view_of(running, "done", Eta(), 20.0).pictures.front
    assert front.picked == 0 and front.final
    text = "\n".join(rows_of(draw_front(front, 60, 15, ascii_only=True)))
    assert text.count("X") == 1 and text.count("o") == 3


def test_a_search_whose_trials_were_all_dropped_says_so():
    columns = {"kl": [math.inf] * 3, "refusal_rate": [1.0] * 3, "dropped": [1.0] * 3}
    front = view_of(state_of(*steps_of(columns), method="abliteration"), "running", Eta(), 20.0).pictures.front
    assert front.picked is None and "every trial was dropped" in rows_of(draw_front(front, 60, 10))[0]
    assert front_of([Tried(0, 0.1, 0.5, True)]) == []


def test_a_reliability_diagram_before_and_after():
    bins = [(0.1 + 0.05 * place, 0.05 * place, 68) for place in range(15)]
    after = [(0.05 * place, 0.05 * place, 68) for place in range(15)]
    events = [
        MetricEvent(stage=0, name="ece", value=0.1, n=1026, step=0, when="before", detail={"bins": bins}),
        MetricEvent(stage=0, name="ece", value=0.0, n=1026, step=0, when="after", detail={"bins": after}),
    ]
    found = view_of(state_of(*events, method="calibration"), "done", Eta(), 20.0).pictures.reliability
    assert found.words == "ECE before 0.100, ECE after 0.000 (n 1026, 15 bins of equal mass)"
    picture = draw_reliability(found, 60, 20, ascii_only=True)
    text = "\n".join(rows_of(picture))
    assert text.count("x") >= 12 and text.count("o") >= 12 and "target" in roles_of(picture)


# ---- what asks for attention ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method, values, limit, code",
    [
        ("dpo", {"kl": [0.2] * 5}, 0.1, "kl-over-target"),
        ("grpo", {"silent_groups": [1.0] * STEPS, "reward": [0.1, 0.2] * (STEPS // 2), "reward_std": [0.0] * STEPS}, None, "silent-groups"),
        ("grpo", {"silent_groups": [1.0] * STEPS, "reward": [0.0] * STEPS, "reward_std": [0.0] * STEPS}, None, "equal-rewards"),
        ("grpo", {"silent_groups": [0.5] * STEPS, "clipped": [1.0] * STEPS}, None, "clipped"),
        ("sft", {"loss": [1.0 + 0.01 * (step % 5) for step in range(60)] + [9.0]}, None, "loss-spike"),
        ("sft", {"loss": [1.0, NAN]}, None, "loss-not-finite"),
    ],
)  # fmt: skip
def test_each_warning_sign_is_seen_alone_and_says_what_to_do(method, values, limit, code):
    signs = warning_signs(method, values, limit)
    assert [sign.code for sign in signs] == [code]
    assert "`" in signs[0].mend or "samples" in signs[0].mend
    shorter = {name: column[: len(column) // 2] for name, column in values.items() if name != "loss"}
    assert warning_signs(method, shorter, limit) == []


def test_ordinary_training_raises_no_sign():
    losses = [3 * math.exp(-step / 20) + 0.3 * ((step * 7919) % 11) / 11 for step in range(120)]
    ordinary = {
        "loss": losses,
        "kl": [0.01] * 50,
        "reward": losses,
        "reward_std": [0.3] * 50,
        "silent_groups": [0.4] * 50,
        "clipped": [0.1] * 50,
    }
    assert warning_signs("grpo", ordinary, 0.1) == []
    assert warning_signs("sft", {"loss": losses}, 0.1) == []


def test_the_machine_and_the_clock_are_heard_while_a_run_works_and_only_then():
    state = state_of(HeartbeatEvent(stage=0, time=100.0))
    hot = Surroundings("RTX 3090", 24 * 2**30, 2**30, "blender (2.4 GiB)", 91.0, "heat")
    codes = [one.code for one in conditions_of(state, state.stages[0], "running", 175.0, hot)]
    assert codes == ["no-event", "memory", "throttled"]
    words = conditions_of(state, state.stages[0], "running", 101.0, hot)[0]
    assert "23.0 of 24.0 GiB" in words.text and "close blender" in words.mend
    warm = Surroundings("RTX 3090", 24 * 2**30, 2**34, celsius=88.0)
    assert [one.code for one in conditions_of(state, state.stages[0], "running", 101.0, warm)] == ["hot"]
    assert conditions_of(state, state.stages[0], "interrupted", 999.0, hot) == []


# ---- samples, forecast, zoom -------------------------------------------------------------------------------------------------


def sample(step, prompt, text, label=""):
    return SampleEvent(stage=0, step=step, prompt=prompt, completion=text, label=label)


def test_answers_to_a_prompt_stand_beside_the_first_or_another_earlier_one():
    samples = [sample(step, "Who?", f"at {step}") for step in (0, 20, 40)] + [sample(40, "When?", "once")]
    first = answers_over_time(samples)
    assert [one.prompt for one in first] == ["Who?", "When?"] and first[1].earlier is None
    assert (first[0].earlier.completion, first[0].now.completion) == ("at 0", "at 40")
    assert answers_over_time(samples, back=1)[0].earlier.completion == "at 20"
    assert answers_over_time(samples, back=2)[0].earlier.completion == "at 0" and earlier_choices(samples) == 2


def test_the_first_answers_outlive_the_many_samples_of_training():
    events = [sample(0, f"q{number}", "before") for number in range(3)]
    events += [sample(step, "t", "x", "training") for step in range(1, 3 * KEPT_SAMPLES)]
    events += [sample(200, f"q{number}", "after") for number in range(3)]
    samples = state_of(*events).stages[0].samples
    assert len(samples) == KEPT_SAMPLES
    found = {one.prompt: one for one in answers_over_time(samples) if one.earlier}
    assert {found[f"q{number}"].earlier.completion for number in range(3)} == {"before"}


def test_forecast_against_actual_from_the_log_alone():
    told = {
        "memory": {"low_mib": 800.0, "high_mib": 900.0},
        "time_s": {"low": 60.0, "high": 120.0, "basis": "same stage"},
    }
    state = state_of(
        AlertEvent(stage=0, level="info", code="forecast", text="", detail=told),
        *steps_of({"loss": [1.0] * 3, "memory_mib": [500.0, NAN, 990.0]}),
        StageEvent(stage=0, state="done", method="dpo", passed=True, time=93.0),
    )
    planned = view_of(state, "done", Eta(), 100.0).planned[0]
    assert (
        planned.memory.word == "10% over" and planned.seconds.actual == 90.0 and planned.seconds.word == "as forecast"
    )
    assert planned.basis == "from the same stage"


def test_an_older_log_has_the_launch_probes_forecast():
    probe = AlertEvent(
        stage=0, level="info", code="launch-probe", text="", detail={"forecast": {"low_mib": 1.0, "high_mib": 2.0}}
    )
    assert view_of(state_of(probe), "running", Eta(), 5.0).planned[0].memory.high == 2.0
    assert view_of(state_of(), "running", Eta(), 5.0).planned[0].memory.word == ""


def test_a_window_follows_the_newest_step_or_stays_where_it_was_put():
    state = state_of(*steps_of({"loss": [1.0 / step for step in range(1, 81)]}))

    def window(look):
        zoom = view_of(state, "running", Eta(), 99.0, look).zoom
        return zoom.first, zoom.last

    following, put = Look(gauge="loss", span=20), Look(gauge="loss", span=20, end=50)
    assert window(Look(gauge="loss")) == (1, 80) and window(following) == (61, 80) and window(put) == (31, 50)
    state.apply_all(steps_of({"loss": [0.01] * 10}, start=81))
    assert window(following) == (71, 90) and window(put) == (31, 50)
    assert window(Look(gauge="loss", span=20, end=5)) == (1, 5)
    assert view_of(state, "running", Eta(), 99.0, Look(gauge="nothing")).zoom.chart.key == "loss"


# ---- comparison ------------------------------------------------------------------------------------------------------------


def compared(run_id, beta, losses, passed=True):
    state = state_of(
        *steps_of({"loss": losses}),
        GateEvent(stage=0, name="kl", value=0.05, min=None, max=0.1, passed=passed, n=400, step=3),
        gates={"kl": [None, 0.1]},
    )
    recipe = {"name": "x", "stages": [{"method": "dpo", "beta": beta, "data": {"source": "a.jsonl"}}]}
    return Compared(run_id, "done", state, recipe)


def test_runs_are_compared_by_recipe_gates_and_gauges():
    runs = [compared("x-1", 0.1, [3.0, 2.0]), compared("x-2", 0.2, [4.0, 1.0, 0.5], passed=False)]
    found = compare(runs)
    assert [(row.field, row.values) for row in found.differences] == [("1 dpo.beta", ["0.1", "0.2"])]
    assert found.gates[0].words == "dpo kl ≤ 0.1" and [cell.passed for cell in found.gates[0].cells] == [True, False]
    assert found.charts == [("dpo", "loss", "loss")] and found.labels == ["1", "2"]
    drawn = overlay(runs, "dpo", "loss")
    assert [course.values for course in drawn.courses] == [[3.0, 2.0], [4.0, 1.0, 0.5]]


def test_a_field_that_one_run_lacks_is_a_difference():
    one, other = compared("a", 0.1, [1.0]), compared("b", 0.1, [1.0])
    more = Compared("b", "done", other.state, {**other.recipe, "seed": 1})
    assert [(row.field, row.values) for row in differences([one, more])] == [("seed", ["–", "1"])]
    assert short_labels(["a", "b"]) == ["a", "b"] and short_labels(["a-1", "a-1-x"]) == ["1", "1-x"]


def test_a_gate_that_nothing_measured_waits_no_longer_once_the_stage_is_over():
    gates = {"retention": [0.9, None]}
    running = state_of(gates=gates)
    over = state_of(
        StageEvent(state="done", method="dpo", stage=0, time=4.0, steps_total=100, passed=True), gates=gates
    )
    words = [view_of(state, "running", Eta(), 5.0).waiting_gates[0][2] for state in (running, over)]
    assert words == ["not decided yet", "not measured"]


def test_a_gauge_of_a_stage_that_is_over_shows_what_its_gate_measured():
    """The live KL is an estimate on pairs, and may end on the other side of the target than the measured one."""
    limits = {"kl": [None, 0.1], "preference_gap": [0.15, None]}
    events = [
        *steps_of({"loss": [2.0, 1.5, 1.0], "kl": [0.2, 0.4, 0.55], "reward": [0.0, 1.0, 2.0]}),
        GateEvent(name="kl", value=0.033, min=None, max=0.1, passed=True, n=400, step=3, stage=0, time=20.0),
        GateEvent(
            name="preference_gap", value=0.1, min=0.15, max=None, passed=False, n=400, step=3, stage=0, time=20.0
        ),
    ]
    over = StageEvent(state="done", method="dpo", stage=0, time=21.0, steps_total=100, passed=False)

    def shown(*last):
        gauges = view_of(state_of(*events, *last, gates=limits), "running", Eta(), 22.0).gauges
        return [(gauge.label, gauge.value, gauge.good) for gauge in gauges[1:]]

    assert [(label, good) for label, _, good in shown()] == [("KL est", False), ("margin", True)]
    assert shown(over) == [("KL", 0.033, True), ("gap", 0.1, False)]
