"""Recorded answers stand in for NVML, for sysctl and ioreg, and for /sys."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pynvml

FOLDER = Path(__file__).parent
NVML = json.loads((FOLDER / "nvml.json").read_text())
APPLE = json.loads((FOLDER / "apple.json").read_text())
AMD = json.loads((FOLDER / "amd.json").read_text())


class RecordedNvml:
    """Answers what the recording says, raises NVML's own errors, and "not supported" to what was not recorded."""

    NVMLError = pynvml.NVMLError

    def __init__(self, machine: str) -> None:
        self.answers = NVML[machine]
        self.ram = self.answers["ram"]
        self.open = False

    def nvmlInit(self):
        self._answer(self.answers.get("nvmlInit"))
        self.open = True

    def nvmlShutdown(self):
        self.open = False

    def nvmlDeviceGetCount(self):
        return len(self.answers["devices"])

    def nvmlDeviceGetHandleByIndex(self, index):
        device = self.answers["devices"][index]
        self._answer(device.get("handle"))
        return device

    def __getattr__(self, name):
        if name.startswith("NVML_"):
            return getattr(pynvml, name)
        if not hasattr(pynvml, name):
            raise AttributeError(name)  # a question that nvidia-ml-py does not have

        def ask(device=None, *arguments):
            assert self.open, f"{name} before nvmlInit or after nvmlShutdown"
            return self._answer((self.answers if device is None else device).get(name, {"error": 3}))

        return ask

    def _answer(self, value):
        if isinstance(value, dict) and "error" in value:
            raise pynvml.NVMLError(value["error"])
        if isinstance(value, dict):
            return SimpleNamespace(**value)
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return [SimpleNamespace(**item) for item in value]
        return tuple(value) if isinstance(value, list) and value and isinstance(value[0], int) else value


def recorded_commands(machine: str):
    """A stand-in for ``run_command``: sysctl's names and ioreg's text."""
    answers = APPLE[machine]

    def run(command: list[str]) -> str | None:
        return answers.get(command[-1])

    return run


def sys_tree(folder: Path, machine: str) -> Path:
    """A ``/sys`` with the recorded files."""
    for name, text in AMD[machine].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
