"""SFT on MLX in two processes: the figures of one with the same effective batch, and it dies, pauses and goes on as one."""

from __future__ import annotations

import json

import psutil
import pytest

from engine.runs import control
from engine.runs.events import StepEvent
from engine.runs.log import read_events
from tests.kill.conftest import Real
from tests.real_run import RECIPE

pytest.importorskip("mlx_lm")
pytestmark = [pytest.mark.kill, pytest.mark.timeout(300)]

STEPS = 64
ONE = (
    RECIPE[: RECIPE.index("  - method: dpo")]
    .replace("threads: 1", "threads: 1\nbackend: mlx")
    .replace("limit: 160", "limit: 45")  # nine micro-batches: at an epoch's end the second process has none
    .replace("share: 0.3", "share: 0.0")
    .replace("steps: 16", f"steps: {STEPS}")
    + "on_gate_fail: warn\n"
)
TWO = ONE.replace("threads: 1", "threads: 1\nprocesses: 2")


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The run in two processes that nothing happens to."""
    real = Real(tmp_path_factory.mktemp("two"), TWO)
    real.start()
    real.finish()
    return real


def test_two_processes_train_what_one_does_with_the_same_effective_batch(both, tmp_path):
    one = Real(tmp_path / "one", ONE.replace("batch_size: 4", "batch_size: 4\n    accumulation: 2"))
    one.run_here()
    told = [event for event in read_events(both.run.events) if isinstance(event, StepEvent)]
    assert [event.step for event in told] == [*range(1, STEPS + 1)], "each step is told once"
    (losses,), (expected,) = both.result()["losses"], one.result()["losses"]
    assert losses == pytest.approx(expected, rel=1e-5)
    tokens = [real.run.state().stages[0].series["tokens"].values for real in (both, one)]
    assert tokens[0] == tokens[1], "rows that were left out, or trained on twice"
    assert min(tokens[0]) < max(tokens[0]) / 1.5, "no epoch ended"
    checkpoints = both.run.stage_folder(0, "sft") / "checkpoints"
    states = [json.loads(path.read_text()) for path in checkpoints.rglob("training.json")]
    assert states and all(len(state["ranks"]) == 2 and len({*state["ranks"]}) == 1 for state in states)


def test_a_rank_that_is_killed_and_a_pause_end_both_and_the_same_bits_come_out(both, real):
    (real.home / "short.yaml").write_text(TWO)
    real.start()
    real.wait(lambda state: state.stages and state.stages[0].steps_done >= 5)
    everybody = real.stages()
    ranks = [process for process in everybody if "engine.runs.ranks" not in process.cmdline()]
    assert len(ranks) == 2 and len(everybody) == 3
    second = next(process for process in ranks if process.environ()["RANK"] == "1")
    second.kill()
    real.wait(lambda state: state.attempt == 2)
    psutil.wait_procs(everybody, timeout=30)
    assert not any(process.is_running() for process in everybody), "a rank outlived the other"
    log = real.run.log_of(0, "sft")
    told = log.stat().st_size  # the one that was left may have said that the other was lost, before it was ended too

    real.wait(lambda state: state.stages[0].steps_done >= 9)
    control.send(real.run.control, {"command": "pause"})
    real.wait(lambda state: real.status() == "paused")
    real.wait(lambda state: not real.stages(), 20)
    assert b"Traceback" not in log.read_bytes()[told:], "a pause is no loss"
    real.resume()
    real.finish()
    assert real.result() == both.result()
