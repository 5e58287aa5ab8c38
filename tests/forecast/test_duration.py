"""Time: what is planned is what runs do, and what one stage measured prices another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.backends.interface import Completion
from engine.forecast.cost import Cost, Formula, characters_a_token, known_of, padded_step
from engine.forecast.duration import duration
from engine.forecast.hardware import Hardware
from engine.forecast.model import find_model
from engine.forecast.rates import RATES, keep, machine_key, measured_here
from engine.forecast.survey import survey
from engine.forecast.workload import workload
from engine.runs.events import OutlookEvent
from engine.runs.log import read_events
from engine.stages.work import Work, decoding_passes
from recipes.load import load_recipe

MACHINE = Hardware("a card", "cuda", 24_000, 24_000, 86, 70.0, 900.0)
SHORT = [
    "steps=4",
    "evaluation.suite_n=6",
    "evaluation.prompts=70",
    "data.limit=64",
    "replay.share=0.3",
    "batch_size=8",
]


def planned(name, *changes):
    return workload(load_recipe(name, [f"stages.0.{change}" for change in changes]), 0)


def test_what_is_planned_is_what_a_run_does(home):
    command = [sys.executable, "-P", "-m", "tui.cli", "run", "sft", "--headless", "--set", "model=lab-nano"]
    for change in SHORT:
        command += ["--set", f"stages.0.{change}"]
    subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, timeout=400)
    record = json.loads((home / RATES).read_text())
    plan = planned("sft", *SHORT)
    counted: dict[tuple[int, bool], float] = {}
    for one in plan.generated:
        counted[(one.limit, one.greedy)] = counted.get((one.limit, one.greedy), 0) + one.n
    measured: dict[tuple[int, bool], float] = {}
    for one in record["generate"]:
        measured[(one["limit"], one["greedy"])] = measured.get((one["limit"], one["greedy"]), 0) + one["n"]
    assert measured == counted
    for kind in ("score", "divergence"):
        assert record["score"][kind]["n"] == sum(one.n for one in plan.scored if one.kind == kind)
    (run,) = (home / "runs").glob("sft-*")
    (outlook,) = [event for event in read_events(run / "events.jsonl") if isinstance(event, OutlookEvent)]
    assert outlook.around["after"] > 0
    assert record["steps"]["n"] == 2 and record["s"] > record["load"]["s"] > 0
    assert measured_here(record["device"], "pytorch") == [record]
    # From now on this machine is known: the same stage exactly, another method by its counted work.
    told = subprocess.run(
        [sys.executable, "-P", "-m", "tui.cli", "check", "dpo", "--quick", "--json", "--set", "model=lab-nano"],
        env=os.environ, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert json.loads(told.stdout)["stages"][0]["time_s"]["basis"] == "similar runs", told.stdout + told.stderr


def as_if_run(method, slower):
    """The record of a stage on a machine that is so many times slower than the formula says, at everything."""
    model = find_model("lab")
    name = method.replace("_", "-")
    loaded = load_recipe(name)
    from engine.forecast.settings import from_stage

    settings = from_stage(
        loaded.recipe, loaded.recipe.stages[0], inherited_adapter=False, dtype="fp32", quantization="none"
    )
    work = workload(loaded, 0)
    cost = Cost(model, settings, MACHINE, known_of([], model))
    generated = [
        {"limit": one.limit, "greedy": one.greedy, "n": one.n, "batches": -(-one.n // 64),
         "passes": -(-one.n // 64) * one.limit, "tokens": one.n * one.limit, "characters": 4.0 * one.n * one.limit,
         "prompt_characters": one.n * one.prompt, "s": slower * cost.generated(one)}
        for one in work.generated
    ]  # fmt: skip
    row = padded_step(work, settings, cost.known)
    formula = Formula(model, settings, MACHINE)
    step = formula.step(row["tokens"], row["length"]) + formula.sampling(row)
    record = {
        "v": 1, "machine": machine_key(), "device": MACHINE.name, "backend": "pytorch", "method": method,
        "signature": method, "model": model.config, "name": "lab", "settings": settings.to_json(),
        "generate": generated, "score": {}, "steps": {"n": 50, "s": 50 * slower * step}, "padded": row,
        "load": {"s": slower * cost.loading()},
    }  # fmt: skip
    record["s"] = slower * (sum(cost.around(work).values()) + settings.steps * step)
    return record, model, settings, work


@pytest.mark.parametrize("method", ["dpo", "grpo", "anti_hallucination"])
def test_a_slower_machine_is_known_from_another_method(method, home):
    sft = as_if_run("sft", 3.0)[0]
    _, model, settings, work = as_if_run(method, 1.0)
    fresh = duration(model, settings, MACHINE, work)
    known = duration(model, settings, MACHINE, work, [sft])
    assert (fresh.basis, known.basis) == ("rates", "similar runs")
    assert known.step_seconds == pytest.approx(3 * fresh.step_seconds, rel=0.05)
    assert known.high / known.low < fresh.high / fresh.low
    several = duration(model, settings, MACHINE, work, [as_if_run(one, 3.0)[0] for one in ("sft", "orpo", "rlvr")])
    assert several.high / several.low < known.high / known.low
    other = duration(replace(model, config={}), settings, MACHINE, work, [sft])
    assert other.basis == "other models" and known.high / known.low < other.high / other.low


def test_what_a_stage_measured_itself_counts_before_what_others_did():
    sft, model, settings, work = as_if_run("sft", 3.0)
    own = as_if_run("sft", 6.0)[0]
    for one in own["generate"]:
        one["passes"] /= 2  # it writes half as much
    others = Cost(model, settings, MACHINE, known_of([sft], model))
    itself = Cost(model, settings, MACHINE, known_of([sft], model, now=own))
    made = work.generated[0]
    assert itself.known.written_to(made.prompt, made.limit, made.greedy).passes == made.limit / 2
    assert others.known.written_to(made.prompt, made.limit, made.greedy).passes == made.limit
    assert itself.around(work)["after"] == pytest.approx(2 * others.around(work)["after"], rel=0.1)
    assert itself.loading() == others.loading()


def test_what_never_ran_here_is_priced_by_what_is_most_like_it():
    record, model, settings, _ = as_if_run("sft", 1.0)
    cost = Cost(model, settings, MACHINE, known_of([], model))
    asked = {"n": 640, "prompt_characters": 640 * 40.0, "characters": 640 * 40.0}
    tokens = characters_a_token(record["generate"])
    priced = cost.formula.scoring("score", 640, 40.0 / tokens, 40.0 / tokens)
    record |= {"score": {"score": asked | {"s": 5 * priced}}, "load": {"s": 2 * cost.loading()}}
    known = Cost(model, settings, MACHINE, known_of([record], model))
    assert known.factor("divergence") == pytest.approx(5)  # a forward as well; not what generating took
    assert known.factor("generate") == pytest.approx(1)
    assert known.factor("rest", "steering") == pytest.approx(2)  # not what this stage did beside its work


def test_completions_are_as_long_as_those_to_prompts_that_were_most_alike(home):
    model = find_model("lab")
    questions = made(limit=24, greedy=True, prompt=25, passes=8, characters=9.0)
    talk = made(limit=64, greedy=False, prompt=26, passes=33, characters=52.0)
    sums = made(limit=48, greedy=False, prompt=38, passes=20, characters=40.0)
    known = known_of([{"model": model.config, "generate": [questions, talk, sums]}], model)
    assert known.written_to(25.5, 24, False).passes == 8  # other draws of the same questions
    assert known.written_to(26, 64, False).passes == 33
    assert known.written_to(38, 48, True).passes == 20 and known.written_to(38, 10, True).passes == 10
    cut = known_of([{"model": model.config, "generate": [made(20, False, 26, 20, 52.0)]}], model)
    assert cut.written_to(26, 64, False).passes == 64  # all were cut off: a higher limit lets them go on


def made(limit, greedy, prompt, passes, characters):
    """64 completions as long as each other."""
    return {
        "limit": limit, "greedy": greedy, "n": 64, "batches": 1, "passes": passes, "tokens": 64 * passes,
        "characters": 64 * characters, "prompt_characters": 64 * prompt, "s": 1.0,
    }  # fmt: skip


def test_the_same_stage_takes_what_it_took():
    record, model, settings, work = as_if_run("sft", 2.0)
    again = duration(model, settings, MACHINE, work, [record], "sft")
    assert again.basis == "same stage" and again.seconds == pytest.approx(record["s"])
    twice = duration(model, replace(settings, steps=2 * settings.steps), MACHINE, work, [record], "sft")
    assert twice.seconds - again.seconds == pytest.approx(settings.steps * again.step_seconds)


def test_a_batch_decodes_until_its_longest_completion_ends():
    def completion(tokens):
        return Completion("x" * tokens, tuple(range(tokens)), True)

    prompts = [[{"role": "user", "content": "x" * length}] for length in [*range(1, 65), 200]]
    completions = [completion(1 + place % 7) for place in range(64)] + [completion(30)]
    assert decoding_passes(prompts, completions) == [7, 30]
    policy = SimpleNamespace(generate=lambda asked, **_: completions, score=lambda asked, written, **_: [])
    work = Work()
    work.watch(policy).generate(prompts, max_new_tokens=32, temperature=0.0, seed=0)
    policy.score(prompts, ["ab"] * 65)
    (sums,) = (sums for (limit, greedy, _), sums in work.generated.items() if (limit, greedy) == (32, True))
    assert (sums["n"], sums["batches"], sums["passes"]) == (65, 2, 37)
    assert work.scored["score"]["characters"] == 130


def test_data_are_surveyed_by_their_beginning_and_without_failing(tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_text("".join(json.dumps({"prompt": "p" * 10, "answer": "a" * 30}) + "\n" for _ in range(5000)))
    found = survey(path)
    assert found.count == pytest.approx(5000, rel=0.05) and (found.prompt, found.answer) == (10, 30)
    (tmp_path / "odd.jsonl").write_text("no json\n")
    assert survey(tmp_path / "odd.jsonl") == survey(Path("/nowhere")) == survey(None)


def test_a_torn_line_and_another_machines_lines_teach_nothing(home):
    record = as_if_run("sft", 1.0)[0]
    keep(record)
    keep({**record, "machine": "another"})
    with open(home / RATES, "a") as file:
        file.write('{"v": 1, "mach')
    assert [one["method"] for one in measured_here(MACHINE.name, "pytorch")] == ["sft"]
    assert measured_here("another card", "pytorch") == []


def test_the_end_of_a_short_answer_is_no_character_of_it():
    short = {"limit": 48, "n": 100, "tokens": 300, "characters": 800.0}
    cut = {"limit": 16, "n": 10, "tokens": 160, "characters": 640.0}
    assert characters_a_token([short]) == 4.0 == characters_a_token([cut])
    assert characters_a_token([]) == 0.0
