"""Supervisors and stages that start at once: forks of a process that has the training libraries in it already.

What is killed by these tests is real: processes of their own, running the same ``main`` as the product's, under real signals,
with real pipes, locks and files. Only the six seconds are spared in which each stage's Python imports torch and its friends;
tests/kill/test_kill.py and the terminal's evenings start theirs as a user's run does.

``python -m tests.warm`` reads requests, one JSON object a line, and answers with the pid of the supervisor it forked.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import Popen
from types import SimpleNamespace
from typing import Any

from engine.runs.child import child_environment
from recipes.load import library, load_recipe

ROOT = Path(__file__).parents[1]


class WarmProcess:
    """The test's end: a process that was started once, and forks supervisors when asked."""

    def __init__(self) -> None:
        # Another order of sets than in the tests' process, so that nothing may depend on it.
        environment = {**child_environment(1, 1, offline=True), "PYTHONHASHSEED": "7"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.warm"], cwd=ROOT, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip

    def supervise(self, run: Path, environment: Mapping[str, str], hook: str = "") -> int:
        """Fork the supervisor of a run; returns its pid. ``hook``: a function ("module:name") that each stage calls first."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"run": str(run), "environment": {**environment}, "hook": hook}) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def start(command: list[str], **options: Any) -> Any:
    """What ``subprocess.Popen`` is to ``engine.runs.child``: stages are forked, whatever else is started anew."""
    return Forked(command, **options) if "engine.stage" in command else Popen(command, **options)


class Forked:
    """A stage process."""

    hook = ""

    def __init__(self, command: list[str], **options: Any) -> None:
        at = command.index("engine.stage")
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            ranks = int(command[command.index("--num_processes") + 1]) if "--num_processes" in command else 1
            _as_a_stage(command[at:], ranks, **options)

    def poll(self) -> int | None:
        return self._reap(os.WNOHANG)

    def wait(self) -> int:
        code = self._reap(0)
        assert code is not None
        return code

    def _reap(self, how: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, how)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def _as_a_stage(
    argv: list[str],
    ranks: int,
    *,
    stdin: int,
    stdout: Any,
    stderr: int,
    cwd: Path,
    env: dict[str, str],
    start_new_session: bool,
) -> None:
    assert stderr == subprocess.STDOUT and start_new_session
    code = 1
    try:
        os.setsid()
        os.dup2(stdin, 0)
        os.dup2(stdout.fileno(), 1)
        os.dup2(1, 2)
        os.closerange(3, 4096)  # the run's lock, the log, our end of the pipe: they are the supervisor's
        os.chdir(cwd)
        os.environ.clear()
        os.environ.update(env)
        sys.argv = argv
        if ranks > 1:
            _become_a_rank(ranks)
        if Forked.hook:
            module, name = Forked.hook.split(":")
            getattr(importlib.import_module(module), name)()
        from engine import stage

        code = stage.main()
    except BaseException:
        import traceback

        traceback.print_exc()
    os._exit(code)


def _become_a_rank(ranks: int) -> None:
    """In as many forks, with what a launcher tells each; their parent waits for all, as a launcher does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(ranks)}
    pids = []
    for rank in range(ranks):
        pids.append(os.fork())
        if pids[-1] == 0:
            os.environ.update(told, RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(ranks))
            return
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    os._exit(next((1 for code in codes if code), 0))


def _as_a_supervisor(run: Path, environment: dict[str, str], hook: str) -> None:
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        with open(os.devnull) as nothing, open(run / "logs" / "supervisor.log", "ab") as log:
            os.dup2(nothing.fileno(), 0)
            os.dup2(log.fileno(), 1)
            os.dup2(1, 2)
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["engine.runs.supervisor", str(run)]
        from engine.runs import child, supervisor

        Forked.hook = hook
        child.subprocess = SimpleNamespace(Popen=start, STDOUT=subprocess.STDOUT)  # type: ignore[assignment]
        code = supervisor.main()
    except BaseException:
        import traceback

        traceback.print_exc()
    os._exit(code)


def _import_what_stages_import() -> None:
    from engine.backends.sparing import leave_out, without_collecting

    leave_out()
    with without_collecting():
        for package in ("engine.stages", "engine.backends.pytorch", "engine.evaluate", "engine.verify", "engine.runs"):
            module = importlib.import_module(package)
            for found in pkgutil.iter_modules(module.__path__, package + "."):
                if not found.name.endswith((".trace", ".traced_step", ".stand_ins")):
                    importlib.import_module(found.name)
        for name in ("engine.stage", "engine.hardware.device", "engine.forecast.launch", "recipes.load"):
            importlib.import_module(name)
        load_recipe(str(library()["sft"]))  # the cards
        importlib.import_module("transformers.models.llama.modeling_llama")


def main() -> None:
    _import_what_stages_import()
    gc.freeze()  # a collection in a fork would touch, and so copy, all that was imported
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # a supervisor that was killed is gone at once, no zombie
    for line in sys.stdin:
        request = json.loads(line)
        run = Path(request["run"])
        (run / "logs").mkdir(exist_ok=True)
        pid = os.fork()
        if pid == 0:
            _as_a_supervisor(run, request["environment"], request["hook"])
        print(pid, flush=True)


if __name__ == "__main__":
    main()
