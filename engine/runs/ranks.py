"""Several processes for one stage on MLX: ``python -P -m engine.runs.ranks COUNT -m engine.stage RUN_DIR INDEX``.

They are started as MLX documents it for those who do without ``mlx.launch`` ("Distributed Without mlx.launch": a rank and
a ring's host file in the environment). ``mlx.launch`` itself cannot serve here (0.32.4, tried): it gives every rank a pipe
for standard input, so that none has the supervisor's line; it asks without a pause whether those pipes can be written to
(0.5 to 0.6 of a core on a busy machine of two, as long as the training runs); when a rank is killed it waits until the
others have ended, which ignore the SIGTERM it sends; it ends with 0 whatever became of them; and it leaves two files a
rank in the temporary folder.

The ports of the ring are chosen by the ranks themselves (engine/backends/mlx/ranks.py), which agree on them over the
socket pairs that this process makes between the first rank and each of the others.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time

PEERS = "FINETUNE_TUI_PEERS"
"""Environment: this rank's socket pairs, as file descriptors. The first rank has one for each of the others, in order."""
GRACE = 5.0
"""Seconds that the first rank, which speaks for all, is given to say why when another ends with an error."""


def environment_of(rank: int, count: int, peers: list[int]) -> dict[str, str]:
    """What a rank is told. The threads are the stage's: its processes share them."""
    told = dict(os.environ) | {"RANK": str(rank), "WORLD_SIZE": str(count), PEERS: ",".join(map(str, peers))}
    threads = told.get("OMP_NUM_THREADS", "")
    if threads.isdigit():
        told["OMP_NUM_THREADS"] = str(max(1, int(threads) // count))
    return told


def start(count: int, words: list[str]) -> list[subprocess.Popen[bytes]]:
    """The ranks, with our standard input as theirs: it is the line to the supervisor, and each ends when that closes."""
    pairs = [socket.socketpair() for _ in range(count - 1)]
    started = []
    for rank in range(count):
        ends = [first for first, _ in pairs] if rank == 0 else [pairs[rank - 1][1]]
        peers = [end.fileno() for end in ends]
        environment = environment_of(rank, count, peers)
        started.append(subprocess.Popen([sys.executable, "-P", *words], env=environment, pass_fds=peers))
    for pair in pairs:
        for end in pair:
            end.close()  # so that a rank sees the end of the one at the other end
    return started


def watch(ranks: list[subprocess.Popen[bytes]]) -> int:
    """Wait until the first rank has ended, or any with an error; the others are ended then. Returns the exit code,
    negative for a signal, of the rank that decided."""
    running = {process.pid: rank for rank, process in enumerate(ranks)}
    code = 0
    while running:
        pid, status = os.wait()
        rank, code = running.pop(pid), os.waitstatus_to_exitcode(status)
        if rank == 0 or code < 0:
            break
        if code:
            said = _word_of_the_first(ranks[0].pid, running)
            code = code if said is None else said
            break
    for pid in running:
        os.kill(pid, signal.SIGKILL)
    for pid in running:
        os.waitpid(pid, 0)
    return code


def _word_of_the_first(pid: int, running: dict[int, int]) -> int | None:
    deadline = time.monotonic() + GRACE
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            del running[pid]
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    return None


def main() -> int:
    # The supervisor's word ends a stage, as engine/stage.py has it; SIGKILL for this process takes the whole group along.
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    code = watch(start(int(sys.argv[1]), sys.argv[2:]))
    if code < 0:  # the supervisor shall see how the rank died
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(main())
