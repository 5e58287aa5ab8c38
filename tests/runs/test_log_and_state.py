"""The event log loses nothing but a torn tail, and the reducer is one pure function of it."""

from __future__ import annotations

import math
import os
import random

import pytest

from engine.runs.events import (
    CheckpointEvent,
    GateEvent,
    HeartbeatEvent,
    MetricEvent,
    RunEvent,
    StageEvent,
    StepEvent,
    decode,
    encode,
)  # fmt: skip
from engine.runs.log import EventLog, Tail, read_events
from engine.runs.state import RunState

CREATED = RunEvent(
    state="created", detail={"name": "x", "stages": [{"method": "sft", "steps": 10}, {"method": "dpo", "steps": 5}]}
)


def steps(first, last, **extra):
    return [StepEvent(stage=0, step=i, total=10, values={"loss": 1.0 / i, **extra}) for i in range(first, last + 1)]


def test_what_json_lacks_survives():
    event = StepEvent(step=1, total=2, values={"loss": math.nan, "kl": math.inf, "reward": -math.inf, "lr": 0.1})
    back = decode(encode(event))
    assert math.isnan(float(back.values["loss"])) and float(back.values["kl"]) == math.inf
    assert float(back.values["reward"]) == -math.inf and back.values["lr"] == 0.1
    state = RunState().apply_all([CREATED, event])
    assert math.isnan(state.stages[0].series["loss"].values[0])
    metric = MetricEvent(name="p", value=math.inf, n=1, step=1, when="after", low=-math.inf, detail={"x": [math.nan]})
    assert float(decode(encode(metric)).value) == math.inf
    gate = GateEvent(name="kl", value=math.nan, min=None, max=0.1, passed=False, n=1, step=1)
    assert math.isnan(float(decode(encode(gate)).value))


def test_a_log_is_counted_on_and_its_torn_tail_cut(tmp_path):
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for event in [CREATED, *steps(1, 5)]:
        log.append(event)
    log.close()
    whole = path.stat().st_size
    for torn in (
        b'{"kind":"st',
        b'{"kind":"step","step":1,"total":2,"values":{}',
        b"\x00\x00\x00",
        b'{"kind":"nothing"}\n',
    ):
        with open(path, "ab") as file:
            file.write(torn)
        log = EventLog(path)
        assert log.cut == len(torn) and log.last_seq == 6 and path.stat().st_size == whole
        log.close()
    log = EventLog(path)
    log.append(HeartbeatEvent())
    assert [event.seq for event in read_events(path)] == list(range(1, 8))


def test_a_log_of_nothing_but_a_torn_line(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"kind":')
    log = EventLog(path)
    assert (log.last_seq, log.cut) == (0, 8)


def test_long_last_lines_are_found(tmp_path):
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    log.append(CREATED)
    log.append(RunEvent(state="running", reason="x" * 300_000))
    log.close()
    assert EventLog(path).last_seq == 2


def test_a_reader_sees_whole_events_only(tmp_path):
    path = tmp_path / "events.jsonl"
    tail = Tail(path)
    assert tail.read() == []
    line = encode(StepEvent(step=1, total=2, values={"loss": 1.0}))
    with open(path, "ab", buffering=0) as file:
        file.write(line[:20])
        assert tail.read() == []
        file.write(line[20:])
        assert len(tail.read()) == 1 and tail.read() == []


def test_a_full_disk_makes_the_writer_wait(tmp_path, monkeypatch):
    log = EventLog(tmp_path / "events.jsonl")
    log.append(CREATED)
    real, failures = os.write, [1, 2]

    def write(descriptor, data):
        if failures:
            failures.pop()
            if len(failures) == 1:
                return real(descriptor, data[:10])  # a partial write comes first
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr("engine.runs.log.WAIT_FOR_ROOM", 0.0)
    log.append(RunEvent(state="running"))
    monkeypatch.undo()
    assert [event.state for event in read_events(tmp_path / "events.jsonl")] == ["created", "running"]


def test_one_reader_at_once_or_in_pieces_agree():
    events = [
        CREATED, RunEvent(state="running"), StageEvent(stage=0, state="started", method="sft", steps_total=10),
        *steps(1, 7), CheckpointEvent(stage=0, action="saved", step=5, path="p"),
        MetricEvent(stage=0, name="loss", value=1.0, n=3, step=0, when="before"),
        MetricEvent(stage=0, name="loss", value=0.5, n=3, step=7, when="during"),
        GateEvent(stage=0, name="kl", value=0.2, min=None, max=0.1, passed=False, n=3, step=7),
        CheckpointEvent(stage=0, action="restored", step=5, path="p"), *steps(6, 10, kl=0.1),
    ]  # fmt: skip
    whole, pieces = RunState().apply_all(events), RunState()
    for event in events:
        pieces.apply(event)
    assert whole.stages_to_json() == pieces.stages_to_json()
    stage = whole.stages[0]
    assert stage.series["loss"].steps.tolist() == list(range(1, 11)) and stage.series["kl"].steps.tolist() == [
        6,
        7,
        8,
        9,
        10,
    ]
    assert not stage.gates and stage.metrics["loss"].keys() == {"before"}


def everything(state):
    """What a state knows but its series."""
    stages = [{name: value for name, value in vars(stage).items() if name != "series"} for stage in state.stages]
    return {name: value for name, value in vars(state).items() if name not in ("stages", "_apply")} | {"of": stages}


def random_log(seed):
    """Stretches of steps and heartbeats, of changing gauges and words for numbers, between events of other kinds."""
    draw = random.Random(seed)
    events = [CREATED, RunEvent(state="running")]
    for stage in (0, 1):
        events.append(StageEvent(state="started", method="sft", steps_total=10, stage=stage))
        for _ in range(draw.randint(1, 6)):
            for step in range(1, draw.randint(2, 40)):
                names = draw.sample(["loss", "kl", "reward"], draw.choice([3, 3, 3, 3, 2]))
                values = {name: draw.choice([0.5, 1, draw.random(), draw.random(), math.nan]) for name in names}
                events.append(StepEvent(stage=stage, step=step, total=50, values=values))
                if draw.random() < 0.2:
                    events.append(HeartbeatEvent(attempt=draw.randint(0, 2), stage=stage))
            kinds = [
                GateEvent(name="kl", value=0.1, min=None, max=1.0, passed=True, n=3, step=9, stage=stage),
                CheckpointEvent(action="restored", step=draw.randint(0, 9), path="x", stage=stage),
                MetricEvent(name="kl", value=0.2, n=3, step=draw.randint(0, 9), when="during", stage=stage),
            ]
            events.append(draw.choice(kinds))
    return events


@pytest.mark.parametrize("seed", range(8))
def test_a_log_that_is_skimmed_says_the_same_but_for_its_series(tmp_path, seed):
    path = tmp_path / "events.jsonl"
    log = EventLog(path)
    for event in random_log(seed):
        log.append(event)
    log.close()
    for limit in (700, 1 << 19):
        read, skimmed = RunState(), RunState()
        whole, tail, count = Tail(path), Tail(path), 0
        while events := whole.read(limit):
            read.apply_all(events)
        while events := tail.skim(limit):
            skimmed.apply_all(events)
            count += len(events)
        mine, theirs = everything(skimmed), everything(read)
        mine.pop("attempt"), theirs.pop("attempt")  # no list shows it
        assert mine == theirs and tail.offset == whole.offset and count < log.last_seq


@pytest.mark.parametrize("seed", range(8))
def test_steps_taken_together_or_one_by_one_make_the_same_series(seed):
    events = random_log(seed)
    together, single = RunState().apply_all(events), RunState()
    for event in events:
        single.apply(decode(encode(event)))

    def series(state):
        return [
            {n: (one.steps.tolist(), str(one.values.tolist())) for n, one in s.series.items()} for s in state.stages
        ]

    assert series(together) == series(single)


def test_lines_of_a_newer_version_are_passed_over(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_bytes(encode(CREATED) + b'{"kind":"hologram","v":9}\n' + encode(RunEvent(state="running")))
    assert RunState().apply_all(read_events(path)).status == "running"


def test_the_shape_that_show_prints():
    state = RunState().apply_all(
        [CREATED, StageEvent(stage=0, state="started", method="sft", steps_total=10), *steps(1, 3)]
    )
    first = state.stages_to_json()[0]
    assert first["metrics"]["loss"] == {"last": pytest.approx(1 / 3), "n": 3}
    assert (first["index"], first["method"], first["status"], first["steps_done"], first["steps_total"]) == (
        0,
        "sft",
        "running",
        3,
        10,
    )
    assert {"gates", "started", "ended"} <= set(first)
