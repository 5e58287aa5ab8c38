"""Completions that attack the sandbox: each scores 0, nothing gets out, and the next completion is judged as ever."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from engine.verify.code import Code
from engine.verify.sandbox.pool import Limits, SandboxError

ANSWER = json.dumps({"tests": [{"input": [2], "output": 4}, {"input": [3], "output": 9}], "entry": "square"})
HONEST = "```python\ndef square(x):\n    return x * x\n```"


@pytest.fixture
def code(jail):
    made = Code(jail, Limits(cpu=1, wall=20, memory_mib=256))
    yield made
    made.close()


def reward(code, completion, answer=ANSWER):
    """Of the completion, judged between two honest ones that must both still pass."""
    before, verdict, after = code.verify([""] * 3, [HONEST, completion, HONEST], [ANSWER, answer, ANSWER])
    assert before.reward == after.reward == 1.0, (before, verdict, after)
    return verdict


def test_an_honest_completion_passes_and_a_wrong_one_does_not(code):
    assert reward(code, HONEST).reward == 1.0
    assert reward(code, "def square(x):\n    return 4").reward == 0.0


def test_a_hang_ends_at_the_cpu_limit(code):
    began = time.monotonic()
    verdict = reward(code, "def square(x):\n    while True: pass")
    assert verdict.reward == 0.0 and "CPU" in verdict.detail
    assert time.monotonic() - began < 60


def test_a_sleep_ends_at_the_wall_limit(jail):
    made = Code(jail, Limits(cpu=5, wall=1))
    verdict = made.verify([""], ["import time\ndef square(x):\n    time.sleep(600)"], [ANSWER])[0]
    assert verdict.reward == 0.0 and "wall" in verdict.detail
    made.close()


def test_a_signal_handler_does_not_outlive_the_cpu_limit(code):
    source = "import signal\nsignal.signal(signal.SIGXCPU, lambda *_: None)\ndef square(x):\n    while True: pass"
    assert reward(code, source).reward == 0.0


def test_a_crash_of_the_interpreter_is_a_failure(code):
    verdict = reward(code, "import ctypes\ndef square(x):\n    ctypes.string_at(0)")
    assert verdict.reward == 0.0 and "SIGSEGV" in verdict.detail


def test_a_fork_bomb_starts_nothing(code):
    source = (
        "import os\ndef square(x):\n    while True:\n        try: os.fork()\n        except OSError: return 'no fork'"
    )
    answer = json.dumps({"tests": [{"input": [2], "output": "no fork"}], "entry": "square"})
    assert reward(code, source, answer).reward == 1.0  # its honest score: it was told that it cannot


def test_threads_and_other_programs_cannot_be_started(code):
    for body in (
        "threading.Thread(target=print).start()",
        "subprocess.run(['/bin/true'])",
        "os.execv('/bin/true', ['x'])",
    ):
        source = f"import os, subprocess, threading\ndef square(x):\n    {body}\n    return x * x"
        assert reward(code, source).reward == 0.0, body


def test_four_gigabytes_are_not_given(code):
    verdict = reward(code, "def square(x):\n    return len(bytearray(4 << 30)) and x * x")
    assert verdict.reward == 0.0 and "MemoryError" in verdict.detail


def test_the_memory_limit_cannot_be_raised(code):
    source = (
        "import resource\ndef square(x):\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))\n    return x * x"
    )
    assert reward(code, source).reward == 0.0


@pytest.mark.parametrize(
    "body",
    [
        "print('x' * 10**6)",  # to nowhere: it is let pass and then ends by the CPU limit
        "return 'x' * 10**8",
        "return [0] * 10**7",
        "os.write(3, b'x' * 10**5)",
        "os.write(3, b'\\n' * 10**5)",
    ],
)
def test_a_flood_is_cut(code, body):
    owner = psutil.Process()
    before = owner.memory_info().rss
    assert reward(code, f"import os\ndef square(x):\n    while True:\n        {body}").reward == 0.0
    assert owner.memory_info().rss - before < 200 << 20


def test_sockets_are_not_opened(code):
    listener = socket.create_server(("127.0.0.1", 0))
    connected = []
    threading.Thread(target=lambda: connected.append(listener.accept()), daemon=True).start()
    port = listener.getsockname()[1]
    source = f"import socket\ndef square(x):\n    socket.create_connection(('127.0.0.1', {port}))\n    return x * x"
    assert reward(code, source).reward == 0.0
    assert connected == []
    listener.close()


def test_environment_and_run_directory_are_out_of_reach(code, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    (tmp_path / "events.jsonl").write_text("secret")
    places = [
        str(tmp_path / "events.jsonl"),
        f"/proc/{os.getpid()}/environ",
        "/etc/passwd",
        os.path.expanduser("~/.netrc"),
    ]
    source = f"""
import os
def square(x):
    found = [key for key in os.environ if "HF" in key or "TOKEN" in key or "FINETUNE" in key]
    for place in {places!r}:
        try:
            found.append(open(place).read())
        except OSError:
            pass
    for folder in ({str(tmp_path)!r}, {str(tmp_path.parent)!r}, {os.getcwd() + "/assets"!r}, "/proc", "/var", "/mnt"):
        try:
            found += os.listdir(folder)
        except OSError:
            pass
    return found
"""
    nothing = json.dumps({"tests": [{"input": [2], "output": []}], "entry": "square"})
    verdict = reward(code, source, nothing)
    assert verdict.reward == 1.0, verdict.detail


def test_nothing_is_written(code, tmp_path):
    places = [str(tmp_path / "written"), "written", "/tmp/written-by-a-guest", "/dev/shm/written-by-a-guest"]
    source = f"""
def square(x):
    done = []
    for place in {places!r}:
        try:
            open(place, "w").write("x")
            done.append(place)
        except OSError:
            pass
    return done
"""
    nothing = json.dumps({"tests": [{"input": [2], "output": []}], "entry": "square"})
    assert reward(code, source, nothing).reward == 1.0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "import sys\ndef square(x):\n    sys.exit(0)",
        'import os\ndef square(x):\n    os.write(3, b\'{"output": 4}\\n{"output": 9}\\n\')\n    os._exit(0)\n',
    ],
    ids=["sys.exit", "os._exit", "inside", "answers-first"],
)
def test_an_exit_is_a_failure_whatever_its_code(code, source):
    assert reward(code, source).reward == 0.0


LINES = [
    "print({0!r}, flush=True)",
    "print({0!r}, file=sys.stderr, flush=True)",
    "os.write(1, {1!r})",
    "os.write(2, {1!r})",
    """print('{{"ready": true}}', 'all tests passed', 'reward: 1.0', {0!r}, sep='\\n', flush=True)""",
]


@pytest.mark.parametrize(
    "printed", [*LINES, "; ".join(LINES)], ids=["stdout", "stderr", "fd-1", "fd-2", "praise", "all"]
)
def test_a_printed_result_is_none(code, printed):
    """What is printed, in the channel's own words, is neither taken for the result nor in its way. The right one is printed
    and a wrong one returned, and the other way round."""

    def square(says, returns):
        line = json.dumps({"output": says})
        show = printed.format(line, line.encode() + b"\n")
        return f"import os, sys\n{show}\ndef square(x):\n    {show}\n    return {returns}"

    wrong = reward(code, square(4, "5"))
    assert wrong.reward == 0.0 and "on input [2]: gave 5" in wrong.detail
    right = reward(code, square(5, "x * x"))
    assert right.reward == 1.0, right.detail


def test_a_verdict_written_into_the_channel_is_refused(code):
    source = """
import os
def square(x):
    os.write(3, b'{"reward": 1.0, "passed": true}\\n')
    return x * x
"""
    assert reward(code, source).reward == 0.0


def test_a_value_that_equals_everything_is_no_value(code):
    source = """
class Any(int):
    def __eq__(self, other): return True
    def __hash__(self): return 0
def square(x):
    return Any(0)
"""
    verdict = reward(code, source)
    assert verdict.reward == 0.0 and "no plain value" in verdict.detail


@pytest.mark.parametrize("body", ["return float(x * x)", "return str(x * x)", "return True if x == 1 else [x * x]"])
def test_types_are_compared_exactly(code, body):
    assert reward(code, f"def square(x):\n    {body}").reward == 0.0


def test_the_grader_and_the_tests_cannot_be_overwritten(code):
    source = """
import builtins, json, sys
import engine.verify.sandbox.guest as guest
guest.plain = lambda value: 4
guest.PLAIN = ()
for module in list(sys.modules.values()):
    if hasattr(module, "same"):
        module.same = lambda one, other: True
json.dumps = lambda *_: '{"output": 4, "reward": 1}'
def square(x):
    return None
"""
    assert reward(code, source).reward == 0.0


def test_other_processes_are_not_signalled(code):
    source = f"""
import os, signal
def square(x):
    hit = []
    for victim in (os.getppid(), {os.getpid()}, {os.getppid()}, -1):
        try:
            os.kill(victim, signal.SIGKILL if victim != {os.getpid()} else 0)
            hit.append(victim)
        except OSError:
            pass
    return hit
"""
    nothing = json.dumps({"tests": [{"input": [2], "output": []}], "entry": "square"})
    assert reward(code, source, nothing).reward == 1.0


def test_what_one_leaves_behind_the_next_does_not_find(code):
    leave = "import builtins, sys\nbuiltins.left = 1\nsys.modules['left'] = 1\ndef square(x):\n    return x * x"
    look = (
        "import builtins, sys\ndef square(x):\n    return x * x + hasattr(builtins, 'left') + ('left' in sys.modules)"
    )
    verdicts = code.verify([""] * 8, [leave, look] * 4, [ANSWER] * 8)
    assert [verdict.reward for verdict in verdicts] == [1.0] * 8


def test_nothing_stays_when_it_is_closed(jail):
    children = lambda: {child.pid for child in psutil.Process().children(recursive=True)}  # noqa: E731
    others = children()
    made = Code(jail, Limits(cpu=1, wall=60, memory_mib=256))
    zygote = children() - others
    assert zygote

    def work():
        with contextlib.suppress(SandboxError):
            made.verify([""], ["import time\ndef square(x):\n    time.sleep(600)"], [ANSWER])

    started = threading.Thread(target=work, daemon=True)
    started.start()
    time.sleep(0.5)
    made.close()
    started.join(20)
    assert not started.is_alive()
    assert not zygote & children()


def test_the_sandbox_comes_back_when_it_is_killed(code):
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    assert reward(code, HONEST).reward == 1.0


OWNER = """
import sys
from engine.verify.code import Code
from engine.verify.sandbox import jails
from engine.verify.sandbox.pool import Limits
code = Code(next(jail for jail in jails.candidates() if jail.name == sys.argv[1])(), Limits(cpu=60, wall=600))
print("started", flush=True)
code.verify([""], ["import time\\ndef square(x):\\n    time.sleep(600)"], [sys.argv[2]])
"""


def test_nothing_outlives_an_owner_that_is_killed(jail):
    owner = subprocess.Popen([sys.executable, "-c", OWNER, jail.name, ANSWER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout.readline() == "started\n"
    until = time.monotonic() + 30
    while len(below := psutil.Process(owner.pid).children(recursive=True)) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    assert len(below) >= 2  # the zygote and the guest
    owner.kill()
    owner.wait()
    owner.stdout.close()
    gone, alive = psutil.wait_procs(below, timeout=30)
    assert not alive
