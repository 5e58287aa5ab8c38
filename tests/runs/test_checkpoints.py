"""A checkpoint is trusted only whole."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections import namedtuple

import pytest

from engine.runs import checkpoints
from engine.runs.checkpoints import CheckpointStore, DiskFull


@pytest.fixture
def store(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints", keep=2)
    for step in (5, 10, 15):
        save(store, step)
    return store


def save(store, step):
    folder = store.staging(step) / "written"
    (folder / "ref").mkdir(parents=True)
    (folder / "weights").write_bytes(bytes([step]) * 1000)
    (folder / "ref" / "weights").write_bytes(b"reference")
    return store.seal(folder, step, {"step": step})


def test_the_newest_whole_one_is_used(store):
    found = store.newest_valid()
    assert found.step == 15 and found.meta == {"step": 15}
    assert not list(store.folder.glob(".staging*"))


def flip(path):
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda path: flip(path / "weights"), "weights has changed"),
        (lambda path: os.truncate(path / "weights", 999), "999 bytes instead of 1000"),
        (lambda path: (path / "ref" / "weights").unlink(), "ref/weights is missing"),
        (lambda path: (path / "manifest.json").unlink(), "no manifest"),
        (lambda path: (path / "manifest.json").write_text("{"), "unreadable manifest"),
    ],
)  # fmt: skip
def test_a_damaged_one_is_named_and_passed_over(damage, said, store):
    damage(store.folder / "step-000015")
    told = []
    assert store.newest_valid(set_aside=False).step == 10  # a rank that only looks leaves it to the first
    assert store.newest_valid(lambda path, reason: told.append((path.name, reason))).step == 10
    assert told[0][0] == "step-000015" and said in told[0][1]
    assert store.newest_valid().step == 10 and len(told) == 1  # set aside, not told again


def test_all_damaged_means_none(store):
    for path in store.all():
        flip(path / "weights")
    assert store.newest_valid() is None


def test_only_the_newest_and_the_passed_are_kept(store):
    store.mark_passed(5)
    save(store, 20)
    assert [path.name for path in store.prune()] == ["step-000010"]
    assert store.newest_passed().step == 5
    store.mark_passed(20)
    assert [path.name for path in store.prune()] == ["step-000005"]
    assert store.newest_passed().step == 20


def test_coming_by_a_step_again_replaces_its_checkpoint(store):
    save(store, 15)
    assert store.verify(store.folder / "step-000015") is None


def test_no_room_is_found_before_writing(store, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 100))
    with pytest.raises(DiskFull) as caught:
        store.staging(20)
    assert caught.value.needed > 1000 and "MiB are needed" in str(caught.value)
    assert store.newest_valid().step == 15


def test_no_room_while_sealing_leaves_the_older_ones(store, monkeypatch):
    folder = store.staging(20) / "written"
    folder.mkdir()
    (folder / "weights").write_bytes(b"x" * 5000)

    def full(folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoints, "sync_tree", full)
    with pytest.raises(DiskFull) as caught:
        store.seal(folder, 20, {})
    assert caught.value.needed > 5000
    assert store.newest_valid().step == 15


KILLED = """
import os, signal, sys
from pathlib import Path
from engine.runs import checkpoints, files
from engine.runs.checkpoints import CheckpointStore
store = CheckpointStore(Path(sys.argv[1]), keep=2)
folder = store.staging(20) / "written"; folder.mkdir()
(folder / "weights").write_bytes(b"x" * 5000)
calls = 0
def counted(real):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
os.fsync = counted(os.fsync); os.replace = counted(os.replace); Path.rename = counted(Path.rename)
store.seal(folder, 20, {})
"""


@pytest.mark.parametrize("call", range(1, 9))
def test_a_kill_at_any_call_of_the_save_leaves_a_whole_checkpoint(call, store):
    process = subprocess.run([sys.executable, "-c", KILLED, str(store.folder), str(call)], check=False)
    newest = store.newest_valid()
    assert newest.step in (15, 20) and store.verify(newest.path) is None
    assert newest.step == 20 or process.returncode == -9
    save(store, 25)
    assert store.newest_valid().step == 25 and not list(store.folder.glob(".staging*"))
