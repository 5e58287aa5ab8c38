"""Keep the machine awake while a run works. Closing a laptop's lid still sleeps it; the run goes on afterwards."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys


class Awake:
    """Holds an inhibitor process (caffeinate, systemd-inhibit) where there is one; it ends with ours."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> str | None:
        """Returns the name of the tool that is used, or None if there is none."""
        command = self._command()
        if command is None:
            return None
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
        return command[0]

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None

    def _command(self) -> list[str] | None:
        if sys.platform == "darwin" and shutil.which("caffeinate"):
            return ["caffeinate", "-i", "-w", str(os.getpid())]
        # Inhibiting needs a running login manager; without one the tool fails at once, and its process with it.
        if shutil.which("systemd-inhibit") and os.path.exists("/run/systemd/seats"):
            wait = f"while kill -0 {os.getpid()} 2>/dev/null; do sleep 5; done"
            return ["systemd-inhibit", "--what=sleep:idle", "--who=finetune-tui", "--why=training", "sh", "-c", wait]
        return None
