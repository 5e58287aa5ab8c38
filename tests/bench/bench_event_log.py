"""A million events from the disk through the decoder and the reducer."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from engine.runs.events import HeartbeatEvent, RunEvent, StepEvent, encode
from engine.runs.log import Tail
from engine.runs.state import RunState

EVENTS = 1_000_000
ROUNDS = 5
LIMIT = 3.0


def write(path: Path) -> None:
    """Nearly all steps with six gauges, a heartbeat now and then, as a long run has."""
    head = RunEvent(state="created", seq=1, detail={"name": "x", "stages": [{"method": "sft", "steps": EVENTS}]})
    with open(path, "wb") as file:
        file.write(encode(head))
        for i in range(1, EVENTS):
            if i % 20 == 0:
                file.write(encode(HeartbeatEvent(seq=i + 1, time=1.7e9 + i, attempt=1, stage=0)))
                continue
            values = {
                "loss": 1.0 / i, "kl": 0.01, "grad_norm": 0.5, "learning_rate": 1e-4, "tokens_per_second": 1000.5,
                "memory_mib": 500.25,
            }  # fmt: skip
            file.write(
                encode(StepEvent(seq=i + 1, time=1.7e9 + i, attempt=1, stage=0, step=i, total=EVENTS, values=values))
            )


def rows() -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.jsonl"
        write(path)
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            state, tail = RunState(), Tail(path)
            while events := tail.read():
                state.apply_all(events)
            times.append(time.perf_counter() - began)
            assert state.stages[0].steps_done == EVENTS - 1
        size = path.stat().st_size / 2**20
    found = f"{statistics.median(times):.2f} s (min {min(times):.2f}, max {max(times):.2f}, n {ROUNDS}; {size:.0f} MiB)"
    return [f"| a million events read and reduced | {found} | < {LIMIT:.0f} s |"]
