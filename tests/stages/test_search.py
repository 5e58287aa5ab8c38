"""The searches' memory and choices: resumed to the bit, torn tails cut, broken files refused, the front and the pick."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest

from engine.evaluate.measurement import rate
from engine.evaluate.steering import shown, side_effects, strength_of, tail, wrong_way
from engine.stages.abliteration import space
from engine.stages.journal import Journal
from engine.stages.steering import _pick, solve, told
from engine.stages.study import STARTUP, Study, Trial, default_pick, front
from recipes.errors import InputError

STAGE = SimpleNamespace(depth_from=0.4, depth_to=0.9, positions=3)
STEPS = STARTUP + 6


def objective(parameters):
    """A made-up landscape with a price: weight takes refusals away and costs KL."""
    weight = parameters["mlp.weight"] + parameters["attention.weight"]
    kl = weight**2 * (0.02 if parameters["form"] == "norm" else 0.03) + abs(parameters["depth"] - 0.6)
    return kl, (None if kl > 0.25 else max(0.0, 1.0 - weight))


def searched(path, steps, start=None):
    study = start or Study(path, space(STAGE, ["plain", "norm"]), lambda number: 100 + number)
    while len(study.trials) < steps:
        _, parameters = study.propose()
        study.add(parameters, *objective(parameters))
    return study


def reopened(path):
    return Study(path, space(STAGE, ["plain", "norm"]), lambda number: 100 + number)


def test_a_search_that_is_killed_anywhere_goes_on_as_if_it_had_not_been(tmp_path):
    whole = searched(tmp_path / "whole.jsonl", STEPS)
    assert any(trial.rate is None for trial in whole.trials) and any(trial.rate is not None for trial in whole.trials)
    for killed_after in (0, 3, STARTUP, STARTUP + 3):
        path = tmp_path / f"{killed_after}.jsonl"
        searched(path, killed_after)
        with open(path, "ab") as file:  # the record that was being written when it was killed
            file.write(b'{"op_code":4,"worker_id":"x","study_id":0,"params":{"depth":0.')
        again = reopened(path)
        assert again.trials == whole.trials[:killed_after]
        assert searched(path, STEPS, again).trials == whole.trials
        assert reopened(path).trials == whole.trials


def test_the_study_is_optunas_own(tmp_path):
    import optuna
    from optuna.storages.journal import JournalFileBackend

    searched(tmp_path / "study.jsonl", 5)
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "study.jsonl")))
    study = optuna.load_study(study_name="abliteration", storage=storage)
    assert len(study.trials) == 5 and len(study.directions) == 2


def test_a_broken_study_is_refused_with_the_way(tmp_path):
    path = tmp_path / "study.jsonl"
    searched(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"garbage\n" + b"".join(lines[1:]))
    with pytest.raises(InputError, match="line 2.*no JSON.*remove the file"):
        reopened(path)
    path.write_text('{"some": "thing"}\n')
    with pytest.raises(InputError, match="no study.*remove the file"):
        reopened(path)
    path.unlink()
    searched(path, 2)
    with pytest.raises(InputError, match="of another search"):
        Study(path, {"depth": space(STAGE, ["plain"])["depth"]}, lambda number: number)


def trial(number, kl, rate):
    return Trial(number, {}, kl, rate)


def test_the_front_and_the_default_pick():
    trials = [
        trial(0, 0.5, 0.0), trial(1, 0.1, 0.2), trial(2, 0.2, 0.005), trial(3, 0.05, 0.9), trial(4, 0.15, 0.3),
        trial(5, 0.01, None), trial(6, 0.1, 0.4),
    ]  # fmt: skip
    assert [one.number for one in front(trials)] == [3, 1, 2, 0]
    assert default_pick(trials, 0.01).number == 2
    assert default_pick(trials[3:5], 0.01).number == 4  # nobody is good enough: the fewest refusals
    assert default_pick([trial(0, 0.9, None)], 0.01) is None


def test_a_journal_keeps_what_it_has_and_cuts_a_torn_tail(tmp_path):
    journal = Journal(tmp_path / "deep" / "x.jsonl")
    journal.append({"a": 1}, {"b": 0.1})
    with open(journal.path, "ab") as file:
        file.write(b'{"c": ')
    again = Journal(journal.path)
    assert again.entries == [{"a": 1}, {"b": 0.1}]
    again.append({"d": 2})
    assert [json.loads(line) for line in journal.path.read_text().splitlines()] == [{"a": 1}, {"b": 0.1}, {"d": 2}]


def test_a_strength_is_solved_for_its_kl():
    assert solve(lambda strength: 3.0 * strength**2, 0.3) == pytest.approx(math.sqrt(0.1), rel=0.02)
    assert solve(lambda strength: 0.01 * strength, 5.0) == 2.0  # even the strongest has less


def test_the_candidate_that_disturbs_least_is_taken_of_those_that_reach_the_aim():
    alerts = []
    context = SimpleNamespace(stage=SimpleNamespace(aim=0.6), alert=lambda *words: alerts.append(words))

    def candidate(shift, disturbance, broken=0.0, persona="warm"):
        return {"persona": persona, "shift": shift, "disturbance": disturbance, "broken": broken}

    tried = [
        candidate(0.7, 0.5), candidate(0.9, 0.3), candidate(0.65, 0.1, broken=0.3), candidate(0.5, 0.01),
        candidate(0.9, 0.0, persona="brief"),
    ]  # fmt: skip
    assert _pick(context, "warm", tried, {"broken": 0.02}) is tried[1] and not alerts
    assert _pick(context, "warm", tried[2:4], {"broken": 0.02}) is tried[3]
    assert alerts[0][1] == "aim-missed"


def test_what_is_told_comes_before_what_a_system_prompt_says():
    user = {"role": "user", "content": "Hi"}
    assert told([user], "Be warm.") == [{"role": "system", "content": "Be warm."}, user]
    assert told([{"role": "system", "content": "x"}, user], "Be warm.")[0]["content"] == "Be warm.\nx"


def test_the_measures_of_steering():
    alone, by_prompt, steered = (rate("share", k, 100) for k in (40, 90, 70))
    found = strength_of("s", alone, by_prompt, steered)
    assert found.value == pytest.approx(0.6) and found.low < 0.6 < found.high
    # Where the prompt does nothing, doing nothing is no strength, and ten points are half of what is asked at least.
    assert strength_of("s", alone, alone, alone).value == 0.0
    assert strength_of("s", alone, rate("share", 30, 100), rate("share", 50, 100)).value == pytest.approx(0.5)
    before = [rate("suite/add", 90, 100), rate("suite/copy", 100, 100), rate("suite/hard", 10, 100)]
    after = [rate("suite/add", 81, 100), rate("suite/copy", 100, 100), rate("suite/hard", 0, 100)]
    effects = side_effects("e", before, after)
    assert effects.value == pytest.approx(0.1) and effects.detail["task"] == "add"
    assert wrong_way("w", [0.0, 1.0, 2.0], [1.0, 0.5, 2.0]).value == pytest.approx(1 / 3)
    one = SimpleNamespace(each=tuple(float(i) for i in range(1, 41)))
    assert tail([one], None) == 19.0 and tail([one], 1) == 1.0 and tail([], None) == 0.0
    judge = SimpleNamespace(verdicts=lambda texts, finished: texts)
    completions = [SimpleNamespace(text=text, finished=True) for text in ("preferred", "broken", "rejected", "broken")]
    measured = shown(judge, completions, "share/x")
    assert (measured.value, measured.detail["broken"], measured.n) == (0.25, 0.5, 4)
