"""Whether a jail holds, found by trying to get out of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from engine.verify.sandbox.jails import Jail
from engine.verify.sandbox.pool import Limits, Sandbox, SandboxError

ATTEMPTS = '''
import os, socket

def escaped(secret, folder):
    """What could be done that must not be possible."""
    done = []
    def attempt(name, action):
        try:
            action()
        except Exception:
            return
        done.append(name)
    def fork():
        if os.fork() == 0:
            os._exit(0)
    def allocate():
        bytearray(4 << 30)
    attempt("read a private file", lambda: open(secret).read())
    attempt("write a file", lambda: open(folder + "/written", "w"))
    attempt("start a process", fork)
    attempt("open a socket", lambda: socket.socket())
    attempt("signal another process", lambda: os.kill(os.getppid(), 0))
    attempt("allocate 4 GB", allocate)
    if any(name.startswith("FINETUNE_TUI_PROBE") for name in os.environ):
        done.append("read the environment")
    return done
'''


def leak(jail: Jail) -> str | None:
    """None if the jail holds, else what is wrong with it: it cannot be started, or what a guest could do in it."""
    sandbox = Sandbox(jail, Limits(cpu=5, wall=20), parallel=1)
    with tempfile.TemporaryDirectory(dir=Path.home() if os.access(Path.home(), os.W_OK) else None) as folder:
        secret = Path(folder) / "secret"
        secret.write_text("secret")
        try:
            guest = sandbox.guest()
            ready = guest.ask({"become": "function", "source": ATTEMPTS, "entry": "escaped"})
            answer = guest.ask({"input": [str(secret), folder]}) if "ready" in ready else ready
            guest.close()
        except SandboxError as error:
            return str(error)
        finally:
            sandbox.close()
    if answer.get("output") == []:
        return None
    return "a guest could " + ", ".join(answer["output"]) if "output" in answer else f"a guest failed ({answer})"
