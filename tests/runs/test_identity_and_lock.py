"""A lock is held by a living process and by nothing else."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
import subprocess
import sys

import pytest

from engine.runs.identity import identity_of, own_identity
from engine.runs.lock import Lock, LockHeld, held, read_holder
from engine.runs.queue import DeviceQueue

HOLD = "import sys,time; from pathlib import Path; from engine.runs.lock import Lock; Lock(Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(60)"


def test_identity_knows_reused_pids_reboots_and_other_machines():
    me = own_identity()
    assert me.alive()
    assert not dataclasses.replace(me, created=me.created - 100).alive()  # the pid, reused by a later process
    assert not dataclasses.replace(me, boot="another boot").alive()
    assert not dataclasses.replace(me, host="another machine").alive()
    assert not dataclasses.replace(me, pid=2**22 + 1).alive()
    assert identity_of(os.getppid()).alive()


def test_a_lock_dies_with_its_holder(tmp_path):
    path = tmp_path / "lock"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    assert held(path) and read_holder(path).pid == process.pid
    with pytest.raises(LockHeld, match=f"process {process.pid}"):
        Lock(path).acquire()
    process.kill()
    process.wait()
    assert not held(path) and not read_holder(path).alive()
    mine = Lock(path)
    mine.acquire()
    assert held(path) and read_holder(path).pid == os.getpid()
    mine.release()
    assert not held(path)


@pytest.mark.parametrize("content", ["", "garbage", json.dumps({"pid": 1, "created": 0.0, "boot": "old", "host": "x"})])
def test_a_stale_lock_file_locks_nothing(content, tmp_path):
    (tmp_path / "lock").write_text(content)
    assert not held(tmp_path / "lock")
    lock = Lock(tmp_path / "lock")
    lock.acquire()
    lock.release()


def test_a_ticket_of_a_dead_process_is_passed_over(tmp_path):
    queue = DeviceQueue(tmp_path, "cuda:0")
    dead = dataclasses.replace(own_identity(), created=1.0).to_json() | {"run": "dead"}
    (queue.folder / "00000000000000000001-1.ticket").write_text(json.dumps(dead))
    queue.enter("mine")
    assert queue.ahead() == 0 and queue.try_take()
    queue.leave()
    assert not list(queue.folder.glob("*.ticket"))
    queue.release()


def test_runs_are_private(fake_run):
    fake = fake_run()
    assert stat.S_IMODE(fake.run.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(fake.run.path.parent.stat().st_mode) == 0o700


def test_somebody_who_only_looks_never_keeps_a_run_from_starting(tmp_path):
    """Watchers ask ``held`` all the time, each holding a shared lock for an instant."""
    import threading

    from engine.runs.lock import Lock, held

    path = tmp_path / "lock"
    path.touch()
    ended = threading.Event()

    def look():
        while not ended.is_set():
            held(path)

    watchers = [threading.Thread(target=look) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        for _ in range(200):
            lock = Lock(path)
            lock.acquire()
            lock.release()
    finally:
        ended.set()
        for watcher in watchers:
            watcher.join()
