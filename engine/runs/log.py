"""The event log: append-only JSON lines, one writer, any number of readers."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from engine.runs.events import AnyEvent, Event, decode, decode_lines, encode

WAIT_FOR_ROOM = 2.0
"""Seconds between two tries to append when the disk is full."""


STEP, HEARTBEAT = b'{"kind":"step",', b'{"kind":"heartbeat",'
"""How ``encode`` begins the lines that a long log is made of."""


class EventLog:
    """The writer. Opening cuts a torn last line that a crash left, and goes on counting where the log ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - lives as long as the log
        self.last_seq, self.cut = self._mend()

    def _mend(self) -> tuple[int, int]:
        """Truncate to the last whole event. Returns its seq and the number of bytes cut."""
        size = self._file.seek(0, os.SEEK_END)
        block = 65536
        while True:  # the tail of the file, from some newline on
            start = max(0, size - block)
            self._file.seek(start)
            tail = self._file.read(size - start)
            end = len(tail)
            while end:
                line_end = tail.rfind(b"\n", 0, end)
                line_start = tail.rfind(b"\n", 0, line_end) + 1 if line_end > 0 else 0
                if line_end < 0 or (line_start == 0 and start > 0):
                    break
                try:
                    seq = decode(tail[line_start:line_end]).seq
                except msgspec.DecodeError:
                    end = line_end  # not an event: cut it too
                    continue
                keep = start + line_end + 1
                self._file.truncate(keep)
                return seq, size - keep
            if start == 0:
                self._file.truncate(0)
                return 0, size
            block *= 4

    def append(self, event: Event) -> None:
        """Stamp ``seq`` (and ``time`` if the sender did not) and write the event in one call.

        A full disk does not lose it: the writer waits for room, and with it the stage that fills the pipe.
        """
        event.seq = self.last_seq + 1
        event.time = event.time or time.time()
        line = encode(event)
        while True:
            start = self._file.seek(0, os.SEEK_END)
            try:
                written = os.write(self._file.fileno(), line)
                if written == len(line):
                    break
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
            self._file.truncate(start)
            time.sleep(WAIT_FOR_ROOM)
        self.last_seq += 1

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


class Tail:
    """A reader that remembers how far it came. A partial last line is the end of the file, not an error."""

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset

    def read(self, limit: int = 1 << 19) -> list[AnyEvent]:
        """The events that were appended since the last call; at most about ``limit`` bytes of them."""
        return _decode(self._more(limit))

    def skim(self, limit: int = 1 << 19) -> list[AnyEvent]:
        """As ``read``, but of neighbouring steps and heartbeats only the last of each: all that a list of runs needs
        of them, for a fraction of the time. Their series are not in it."""
        lines = self._more(limit)
        kept: list[bytes] = []
        last: dict[bytes, bytes] = {}  # kind -> its last line, in the order in which they came
        kind = b""
        for line in lines.splitlines(keepends=True):
            if line.startswith(STEP):
                if kind != STEP:
                    last.pop(STEP, None)
                last[kind := STEP] = line
            elif line.startswith(HEARTBEAT):
                if kind != HEARTBEAT:
                    last.pop(HEARTBEAT, None)
                last[kind := HEARTBEAT] = line
            else:
                kept += [*last.values(), line]
                last, kind = {}, b""
        kept += last.values()
        return _decode(b"".join(kept))

    def _more(self, limit: int) -> bytes:
        """Whole lines."""
        try:
            if os.stat(self.path).st_size == self.offset:
                return b""  # most looks at a log find nothing new
            with open(self.path, "rb") as file:
                if os.fstat(file.fileno()).st_size < self.offset:
                    self.offset = 0  # a resume cut the torn tail that this reader had not read anyway
                file.seek(self.offset)
                data = file.read(limit)
        except FileNotFoundError:
            return b""
        end = data.rfind(b"\n") + 1
        self.offset += end
        return data[:end]


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Pause the cyclic garbage collector: events hold no cycles, and it would look at a million of them again and
    again (measured: it doubles the time of reading a long log)."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def read_events(path: Path) -> list[AnyEvent]:
    """All events of a log."""
    events: list[AnyEvent] = []
    tail = Tail(path)
    while batch := tail.read():
        events += batch
    return events


def _decode(lines: bytes) -> list[AnyEvent]:
    if not lines:
        return []
    try:
        with no_collection():
            return decode_lines(lines)
    except msgspec.DecodeError:  # an event of a newer version, or damage: keep what can be read
        events = []
        for line in lines.splitlines():
            try:
                events.append(decode(line))
            except msgspec.DecodeError:
                continue
        return events
