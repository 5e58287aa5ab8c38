"""The supervisor with real processes and real signals: what dies comes back, what is told is done, nothing is left."""

from __future__ import annotations

import os
import random
import signal

import psutil
import pytest

from engine.runs import control
from engine.runs.events import CheckpointEvent, StepEvent
from engine.runs.launch import command, ensure_resumable
from engine.runs.lock import LockHeld
from engine.runs.log import read_events
from recipes.errors import InputError

SUM_OF_SQUARES = sum(i * i for i in range(1, 13))


def gone(pid):
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_run_goes_through_its_stages_and_leaves_nothing_behind(fake_run):
    fake = fake_run()
    assert fake.supervise(wait=True) == 0
    state = fake.state()
    assert (state.status, state.code) == ("done", 0)
    assert [stage.status for stage in state.stages] == ["done", "done"]
    assert fake.sums() == [SUM_OF_SQUARES] * 2
    assert fake.status() == "done" and fake.run.report.exists()
    assert [event.seq for event in read_events(fake.run.events)] == list(range(1, state.last_seq + 1))


@pytest.mark.kill
@pytest.mark.parametrize("seed", range(3))
def test_kill_nine_of_anything_at_any_moment(seed, fake_run, until):
    """Stage, supervisor, or both, at random moments: the result is that of the undisturbed run."""
    draw = random.Random(seed)
    fake = fake_run(seconds=0.02)
    for _ in range(4):
        process = fake.supervise()
        target = draw.choice(["stage", "supervisor", "both"])
        stage, step = draw.randrange(2), draw.randint(1, 11)
        until(
            lambda process=process, stage=stage, step=step: (
                process.poll() is not None or fake.state().stages[stage].steps_done >= step
            )
        )
        if process.poll() is not None:
            break
        pid = fake.stage_pid()
        victims = {"stage": [pid], "supervisor": [process.pid], "both": [process.pid, pid]}[target]
        for victim in victims:
            if psutil.pid_exists(victim):
                os.kill(victim, signal.SIGKILL)
        if target == "stage":
            process.wait(60)  # it starts the stage again by itself
            break
        process.wait(10)
        until(lambda pid=pid: gone(pid), 10, "the end of the orphaned stage")
        assert fake.status() == "interrupted"
        ensure_resumable(fake.run)
    if fake.status() != "done":
        fake.supervise(wait=True)
    assert fake.state().status == "done" and fake.sums() == [SUM_OF_SQUARES] * 2


def test_what_is_after_the_restored_checkpoint_is_superseded(fake_run):
    fake = fake_run(kill={"1": 8})
    assert fake.supervise(wait=True) == 0
    events = read_events(fake.run.events)
    told = [event.step for event in events if isinstance(event, StepEvent) and event.stage == 0]
    assert told.count(7) == 2  # both attempts told it
    series = fake.state().stages[0].series["sum"]
    assert series.steps.tolist() == list(range(1, 13)) and series.values[-1] == SUM_OF_SQUARES
    assert any(
        isinstance(event, CheckpointEvent) and event.action == "restored" and event.step == 5 for event in events
    )
    assert any("killed by SIGKILL" in event.reason for event in fake.state().exits)


def test_a_stage_that_keeps_crashing_fails_with_its_last_words(fake_run):
    fake = fake_run(crash={"every": 3})
    assert fake.supervise(wait=True) == 1
    state = fake.state()
    assert state.status == "failed" and "ValueError: the fake stage crashes here" in state.reason
    assert state.stages[0].attempts == 3


def test_crashes_that_make_progress_are_not_counted_together(fake_run):
    fake = fake_run(steps=30, crash={"1": 7, "2": 12, "3": 17, "4": 22, "5": 27})
    assert fake.supervise(wait=True) == 0
    assert fake.state().stages[0].attempts == 6


def test_bad_input_is_not_tried_again(fake_run):
    fake = fake_run(bad_input=2)
    assert fake.supervise(wait=True) == 2
    assert "row 3 is bad" in fake.state().reason and fake.state().stages[0].attempts == 1


@pytest.mark.parametrize("word, status", [("pause", "paused"), ("stop", "stopped")])
def test_pause_and_stop_save_and_resume_carries_on(word, status, fake_run):
    fake = fake_run(hold=7)
    process = fake.supervise()
    fake.wait_step(7)
    answer = command(fake.run, word)
    assert word in answer["says"]
    process.wait(20)
    assert fake.status() == status
    assert fake.state().stages[0].steps_done == max(
        event.step for event in fake.state().stages[0].checkpoints if event.action == "saved"
    )
    fake.go()
    assert fake.supervise(wait=True) == 0
    assert fake.sums() == [SUM_OF_SQUARES] * 2
    assert not list(fake.run.control.iterdir())


@pytest.mark.parametrize(("word", "status"), [("pause", "paused"), ("stop", "stopped")])
def test_a_word_to_a_stage_that_is_just_ending_holds_before_the_next(word, status, fake_run):
    """The stage looks for commands no more; what was promised is kept all the same."""
    fake = fake_run(seconds=0.05, deaf=True)
    process = fake.supervise()
    fake.wait_step(1)
    assert "will do" in command(fake.run, word)["says"]
    assert process.wait(60) == 1 and fake.status() == status
    stages = fake.state().stages
    assert stages[0].status == "done" and stages[1].status == "waiting"
    fake.plan()
    assert fake.supervise(wait=True) == 0 and fake.status() == "done"


def test_a_word_to_a_stage_that_crashes_holds_too(fake_run):
    fake = fake_run(seconds=0.1, deaf=True, crash={"1": 8})
    process = fake.supervise()
    fake.wait_step(2)
    command(fake.run, "pause")
    assert process.wait(60) == 1 and fake.status() == "paused" and fake.state().attempt == 1
    fake.plan()
    assert fake.supervise(wait=True) == 0 and fake.status() == "done"


def test_nobody_to_pause_is_said(fake_run):
    fake = fake_run()
    with pytest.raises(InputError, match="interrupted"):
        command(fake.run, "pause")
    control.send(fake.run.control, {"command": "stop"})  # left for a supervisor that never came
    assert fake.supervise(wait=True) == 0


def test_signals_to_the_supervisor_and_the_stage_change_nothing(fake_run):
    fake = fake_run(hold=2)
    process = fake.supervise()
    fake.wait_step(2)
    for name in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        os.kill(process.pid, name)
        os.kill(fake.stage_pid(), name)
    fake.go()
    assert process.wait(30) == 0
    assert fake.state().stages[0].attempts == 1


def test_of_two_supervisors_one_works(fake_run):
    fake = fake_run(hold=1)
    first = fake.supervise()
    fake.wait_step(1)
    with pytest.raises(LockHeld, match=f"process {first.pid}"):
        ensure_resumable(fake.run)
    assert fake.supervise(wait=True) != 0
    fake.go()
    assert first.wait(30) == 0
    assert fake.sums() == [SUM_OF_SQUARES] * 2


def test_a_second_run_waits_for_the_device(fake_run, until):
    one, two, three = fake_run(hold=1), fake_run(), fake_run()
    first = one.supervise()
    one.wait_step(1)
    second = two.supervise()
    until(lambda: two.status() == "queued")
    third = three.supervise()
    until(lambda: three.status() == "queued")
    assert "2 before this run" in three.state().reason
    one.go()
    assert [process.wait(60) for process in (first, second, third)] == [0, 0, 0]
    assert one.state().ended <= two.state().started <= two.state().ended <= three.state().started


def test_now_does_not_wait(fake_run):
    one, two = fake_run(hold=1), fake_run()
    first = one.supervise()
    one.wait_step(1)
    assert two.supervise("--now", wait=True) == 0
    assert first.poll() is None
    one.go()
    assert first.wait(60) == 0


def test_a_waiting_run_can_be_stopped(fake_run, until):
    one, two = fake_run(hold=1), fake_run()
    one.supervise()
    one.wait_step(1)
    second = two.supervise()
    until(lambda: two.status() == "queued")
    command(two.run, "stop")
    second.wait(10)
    assert two.status() == "stopped" and not two.sums()


@pytest.mark.parametrize("policy, code, stages", [("stop", 3, 1), ("warn", 3, 2), ("rollback", 3, 1)])
def test_a_failed_gate(policy, code, stages, fake_run):
    fake = fake_run(extra=f"on_gate_fail: {policy}", passes=False)
    assert fake.supervise(wait=True) == code
    assert len(fake.sums()) == stages and "gate failed: kl" in fake.state().reason


def test_a_damaged_newest_checkpoint_is_passed_over(fake_run):
    fake = fake_run(hold=11)
    process = fake.supervise()
    fake.wait_step(11)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    fake.go()
    checkpoints = sorted((fake.run.stage_folder(0, "sft") / "checkpoints").glob("step-*"))
    (checkpoints[-1] / "sum.json").write_text("7")
    assert fake.supervise(wait=True) == 0
    assert fake.sums() == [SUM_OF_SQUARES] * 2
    assert any("bytes instead of" in alert.text or "changed" in alert.text for alert in fake.state().alerts)


def test_a_torn_log_is_mended(fake_run):
    fake = fake_run(hold=6)
    process = fake.supervise()
    fake.wait_step(6)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    fake.go()
    with open(fake.run.events, "ab") as file:
        file.write(b'{"kind":"step","step":7,"tot')
    assert fake.supervise(wait=True) == 0
    assert any(alert.code == "torn-log" for alert in fake.state().alerts)
    assert fake.sums() == [SUM_OF_SQUARES] * 2


def test_changed_data_is_named_and_refused(fake_run, tmp_path):
    fake = fake_run(hold=3)
    process = fake.supervise()
    fake.wait_step(3)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    fake.go()
    with open(tmp_path / "rows.jsonl", "a") as file:
        file.write('{"prompt": "new", "completion": "row"}\n')
    with pytest.raises(InputError, match="rows.jsonl changed.*--accept-changed-data"):
        ensure_resumable(fake.run)
    ensure_resumable(fake.run, accept_changed_data=True)
    (tmp_path / "rows.jsonl").unlink()
    with pytest.raises(InputError, match="does not exist"):
        ensure_resumable(fake.run)


def test_a_finished_run_is_not_resumed(fake_run):
    fake = fake_run()
    fake.supervise(wait=True)
    with pytest.raises(InputError, match="a run that is done"):
        ensure_resumable(fake.run)
