"""A stage that runs out of memory goes on with a smaller micro-batch: a real run, with the error put into its trainer."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from engine.runs.events import AlertEvent, CheckpointEvent, StepEvent
from engine.runs.log import read_events
from engine.stages.memory import fall_back, ran_out, smaller
from recipes.load import load_recipe
from tests.in_process import run_here
from tests.real_run import Warm

RECIPE = """\
name: tight
model: lab-nano
threads: 1
stages:
  - method: sft
    data: {{source: lab/domain.jsonl, heldout: lab/domain-heldout.jsonl, limit: 64}}
    steps: 4
    batch_size: {batch_size}
    accumulation: {accumulation}
    max_length: 96
    replay: {{share: 0.0}}
    checkpoint: {{every: 2}}
    evaluation: {{max_new_tokens: 4, prompts: 4, suite_n: 1, samples: 0}}
on_gate_fail: warn
"""


@pytest.fixture
def run(warm_process, tmp_path):
    """Runs of the recipe to their ends, in one home; their trainer cannot take more than 4 rows."""
    made = []

    def run(from_step=0):
        recipe = RECIPE.format(batch_size=8, accumulation=1)
        tight = Warm(warm_process, tmp_path / "tight", recipe, hook="tests.runs.no_memory:inject")
        made.append(tight)
        tight.environment |= {"MOST_ROWS": "4", "FROM_STEP": str(from_step)}
        tight.start()
        tight.finish()
        return read_events(tight.run.events), tight.run

    yield run
    for tight in made:
        tight.end()


def losses(events):
    return {event.step: event.values["loss"] for event in events if isinstance(event, StepEvent)}


def told(events):
    return [event.text for event in events if isinstance(event, AlertEvent) and event.code == "out-of-memory"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The losses of the run that was started with the smaller micro-batch."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "tight.yaml").write_text(RECIPE.format(batch_size=4, accumulation=2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FINETUNE_TUI_HOME", str(folder))
        events = read_events(run_here(folder / "tight.yaml").events)
    assert told(events) == [] and len(losses(events)) == 4
    return losses(events)


def test_the_recovered_run_learns_what_the_smaller_micro_batch_would_have(run, undisturbed):
    recovered, where = run()
    (text,) = told(recovered)
    assert "micro-batch of 8" in text and "4, and 2 of them accumulated" in text and "effective batch stays 8" in text
    kept = json.loads((where.stage_folder(0, "sft") / "micro-batch.json").read_text())
    assert kept == {"batch_size": 4, "accumulation": 2}
    assert losses(recovered) == undisturbed
    # The next run of the same stage here does not run into it again, and says why.
    again, _ = run()
    assert told(again) == [] and losses(again) == undisturbed
    said = [event.text for event in again if isinstance(event, AlertEvent) and event.code == "smaller-micro-batch"]
    assert len(said) == 1 and "micro-batch of 8: beginning with 4, and 2" in said[0]


def test_memory_that_runs_out_later_costs_the_steps_since_the_checkpoint(run, undisturbed):
    recovered, _ = run(from_step=3)
    restored = [event.step for event in recovered if isinstance(event, CheckpointEvent) and event.action == "restored"]
    assert restored[0] == 2 and len(told(recovered)) == 1
    # The same rows in other pieces: equal but for the rounding of sums.
    assert losses(recovered) == pytest.approx(undisturbed, rel=1e-3)


def test_a_micro_batch_is_halved_as_long_as_it_can_be(tmp_path, home):
    """What an error leaves for the stage's next start, and what it says where nothing smaller is left."""
    recipe = load_recipe(str(resolved(tmp_path, batch_size=4))).recipe
    said = []
    context = SimpleNamespace(
        stage=recipe.stages[0], folder=tmp_path / "stage", recipe=recipe, index=0,
        alert=lambda level, code, text, **detail: said.append((level, code, text)),
    )  # fmt: skip
    for left in ({"batch_size": 2, "accumulation": 2}, {"batch_size": 1, "accumulation": 4}):
        assert fall_back(context) and json.loads((tmp_path / "stage" / "micro-batch.json").read_text()) == left
        context.stage = context.stage.model_copy(update=left)
    assert not fall_back(context)
    assert [level for level, *_ in said] == ["warning", "warning", "error"] and "micro-batch of 1" in said[-1][2]


def resolved(folder, batch_size):
    path = folder / "tight.yaml"
    path.write_text(RECIPE.format(batch_size=batch_size, accumulation=1))
    return path


@pytest.mark.parametrize("batch,accumulation,expected", [(8, 1, (4, 2)), (6, 2, (3, 4)), (3, 1, (1, 3)), (1, 4, None)])
def test_the_effective_batch_stays(batch, accumulation, expected):
    found = smaller(SimpleNamespace(batch_size=batch, accumulation=accumulation))
    assert (found and (found["batch_size"], found["accumulation"])) == expected


def test_an_out_of_memory_is_known_by_its_words_and_its_cause():
    assert ran_out(RuntimeError("CUDA out of memory. Tried to allocate"))
    assert ran_out(RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"))
    try:
        try:
            raise MemoryError
        except MemoryError as error:
            raise ValueError("a wrapper") from error
    except ValueError as wrapped:
        assert ran_out(wrapped)
    assert not ran_out(RuntimeError("shapes do not match"))
    assert not ran_out(ValueError("out of memory"))
