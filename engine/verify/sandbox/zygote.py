"""The sandbox's own process: jailed before it does anything, it forks one fresh guest for each request.

It is started as ``python -I -S -B -c BOOT FOLDER SETTINGS`` (see jails.py) and reads requests from its standard input, a
Unix socket: 24 bytes of limits with one file descriptor, the guest's channel. The guest gets its limits and its system call
filter before it reads the first line. A guest can open nothing for writing, start nothing, signal nobody and sees no
other process, so what one does is not seen by the next. Standard library only.
"""

from __future__ import annotations

import importlib
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from typing import Any

REQUEST = struct.Struct("<ddQ")
"""CPU seconds, wall seconds, bytes of address space."""
OPEN_FILES = 64


def main(settings: dict[str, Any]) -> None:
    """``settings``: readable (paths, under Landlock), landlock, seccomp (both bool), threads and execute (for
    the filter), modules (a list of folders for imports), preload (a module name, or None)."""
    # The request socket is moved out of the way: no guest inherits it, and standard input is nothing.
    control = socket.socket(fileno=os.dup(0))
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    woken, wake = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)  # so that a guest's end is told at once
    if settings["landlock"]:
        from engine.verify.sandbox import landlock

        landlock.restrict(settings["readable"])
    sys.path[:] = settings["modules"] + [path for path in sys.path if path not in settings["modules"]]
    from engine.verify.sandbox import guest, seccomp  # read now: the guests start with it

    if settings["preload"]:
        importlib.import_module(settings["preload"])
    if settings["seccomp"]:
        seccomp.program(os.uname().machine, settings["threads"], settings["execute"])  # made once, for all guests
    guests: dict[int, tuple[int, float]] = {}
    """By process: its channel (our copy) and the time on the monotonic clock when it is killed."""
    control.sendall(b"ready")
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        events = dict(poll.poll(_patience(guests)))
        if events.get(woken):
            os.read(woken, 4096)
        if events.get(control.fileno()):
            message, channels, _, _ = socket.recv_fds(control, REQUEST.size, 1)
            if len(message) < REQUEST.size or not channels:
                break  # our owner has gone
            cpu, wall, memory = REQUEST.unpack(message)
            child = os.fork()
            if child == 0:
                for other, _ in guests.values():
                    os.close(other)
                control.close()
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                os.dup2(nothing, 2)
                _serve(guest, seccomp, channels[0], cpu, memory, settings)
            guests[child] = (channels[0], time.monotonic() + wall)
            poll.register(channels[0], 0)  # a hang-up is always told: the owner has closed
        _end(guests, events, poll)
    for child in guests:
        os.kill(child, signal.SIGKILL)


def _patience(guests: dict[int, tuple[int, float]]) -> float | None:
    """Milliseconds until something must be looked at."""
    if not guests:
        return None
    return max(0.0, min(500.0, 1000 * (min(deadline for _, deadline in guests.values()) - time.monotonic())))


def _end(guests: dict[int, tuple[int, float]], events: dict[int, int], poll: select.poll) -> None:
    """Kill the guests whose time is up or whose owner has closed, and forget those that have ended."""
    now = time.monotonic()
    for child, (channel, deadline) in list(guests.items()):
        if now >= deadline or events.get(channel, 0) & (select.POLLHUP | select.POLLERR):
            try:
                os.kill(child, signal.SIGKILL)
                done, status = os.waitpid(child, 0)
            except PermissionError:  # a jail in which nobody may signal: the owner kills from outside
                done, status = os.waitpid(child, os.WNOHANG)
        else:
            done, status = os.waitpid(child, os.WNOHANG)
        if done:
            poll.unregister(channel)
            # By hand and without blocking: a guest may have filled the channel.
            try:
                os.set_blocking(channel, False)
                os.write(channel, b'\n{"ended": "%s"}\n' % _ending(status, now >= deadline).encode())
            except OSError:
                pass
            os.close(channel)
            del guests[child]


def _ending(status: int, late: bool) -> str:
    if late:
        return "the wall time is up"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        return "the CPU time is up" if name == "SIGXCPU" else f"killed by {name}"
    return f"ended by itself with exit code {os.WEXITSTATUS(status)}"


def _serve(guest: Any, seccomp: Any, channel: int, cpu: float, memory: int, settings: dict[str, Any]) -> None:
    """In the child, which never returns from here."""
    code = 70
    try:
        os.dup2(channel, 3)
        os.closerange(4, 1 << 16)
        seconds = max(1, int(cpu + 0.999))
        limits = {
            resource.RLIMIT_CPU: (seconds, seconds + 1), resource.RLIMIT_FSIZE: (0, 0),
            resource.RLIMIT_NOFILE: (OPEN_FILES, OPEN_FILES), resource.RLIMIT_CORE: (0, 0),
            resource.RLIMIT_AS: (memory, memory),
        }  # fmt: skip
        if not settings["threads"]:  # threads count as processes where this limit works at all (root is not bound)
            limits[resource.RLIMIT_NPROC] = (0, 0)
        for limit, values in limits.items():
            try:
                resource.setrlimit(limit, values)
            except ValueError:
                # Below what the process has already (macOS), where memory is polled from outside.
                if limit != resource.RLIMIT_AS:
                    raise
        if settings["seccomp"]:
            seccomp.install(settings["threads"], settings["execute"])
        guest.serve(3)
        code = 0
    finally:
        os._exit(code)
