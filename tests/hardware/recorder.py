"""Write NVML's answers of this machine in the form of nvml.json: ``python -m tests.hardware.recorder``."""

from __future__ import annotations

import json

import psutil
import pynvml

QUESTIONS = (
    "nvmlDeviceGetName", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetBAR1MemoryInfo", "nvmlDeviceGetCudaComputeCapability",
    "nvmlDeviceGetPowerUsage", "nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetTemperature",
    "nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
)  # fmt: skip


def plain(value):
    if hasattr(value, "_fields_"):
        return {name: getattr(value, name) for name, *_ in value._fields_}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return getattr(value, "__dict__", value)


def answer(question, *arguments):
    try:
        return plain(question(*arguments))
    except pynvml.NVMLError as error:
        return {"error": error.value}


def main() -> None:
    found: dict[str, object] = {"ram": psutil.virtual_memory().total, "devices": []}
    opened = answer(pynvml.nvmlInit)
    if opened is not None:
        found["nvmlInit"] = opened
    else:
        for name in ("nvmlSystemGetDriverVersion", "nvmlSystemGetCudaDriverVersion_v2"):
            found[name] = answer(getattr(pynvml, name))
        devices = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            extra = {"nvmlDeviceGetTemperature": (pynvml.NVML_TEMPERATURE_GPU,)}
            devices.append({name: answer(getattr(pynvml, name), handle, *extra.get(name, ())) for name in QUESTIONS})
        found["devices"] = devices
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
