"""NVIDIA GPUs, asked through NVML (the package nvidia-ml-py).

The probe takes the module as an argument: a recorded one that answers the same calls stands in for it in tests.
NVML answers each question on its own, and any of them may be "not supported": one refusal never loses the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from engine.hardware.machine import UNIFIED_SHARE, Driver, Gpu, Holder

LARGEST_SIZE = 2**63
"""NVML says "not available" by all bits set; anything from here on is no size."""
HEAT = 0x20 | 0x40
POWER_BRAKE = 0x80
"""Bits of the clock-event reasons (nvml.h): software and hardware thermal slowdown; the power supply's brake. The power
cap (0x4) is no reason to worry: every card meets it under load."""

INTEGRATED = ("GB10", "Orin", "Thor", "Xavier")
"""Words in the names of NVIDIA chips that have no memory of their own."""

Named = Callable[[int], tuple[str, bool]]
"""Process id -> (program name, whether it is a stage of ours)."""


def probe_nvidia(nvml: Any, ram_total: int, named: Named) -> tuple[list[Gpu], Driver | None]:
    """Every GPU that the driver lists. ``(…, None)`` when there is no driver at all."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        if error.value in (nvml.NVML_ERROR_LIBRARY_NOT_FOUND, nvml.NVML_ERROR_DRIVER_NOT_LOADED):
            return [], None
        return [], Driver(error=error_words(nvml, error))
    try:
        driver = Driver(_asked(nvml, nvml.nvmlSystemGetDriverVersion), _cuda(nvml))
        gpus: list[Gpu] = []
        visible = visible_devices(os.environ.get("CUDA_VISIBLE_DEVICES"))
        for index in range(_asked(nvml, nvml.nvmlDeviceGetCount) or 0):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
            except nvml.NVMLError as error:  # one that fell off the bus does not hide the others
                driver = Driver(driver.version, driver.cuda, f"GPU {index}: {error_words(nvml, error)}")
                continue
            gpus.append(_gpu(nvml, handle, index, ram_total, named, visible))
        return gpus, driver
    finally:
        nvml.nvmlShutdown()


def error_words(nvml: Any, error: Any) -> str:
    """NVML's own words; the one mismatch that only a reboot cures gets said so."""
    if error.value == nvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH:
        return "the driver was updated and the old one is still loaded (driver/library version mismatch)"
    return str(error)


def visible_devices(setting: str | None) -> Callable[[int, str], bool]:
    """What CUDA_VISIBLE_DEVICES lets through: indices or beginnings of UUIDs, up to the first that is neither."""
    if setting is None:
        return lambda index, uuid: True
    words: list[str] = []
    for word in (part.strip() for part in setting.split(",")):
        if not word.isdigit() and not word.startswith(("GPU-", "MIG-")):
            break  # CUDA ignores everything from the first invalid entry on, -1 and the empty string included
        words.append(word)
    return lambda index, uuid: any(str(index) == word or (uuid and uuid.startswith(word)) for word in words)


def _gpu(nvml: Any, handle: Any, index: int, ram_total: int, named: Named, visible: Callable[[int, str], bool]) -> Gpu:
    name = _asked(nvml, nvml.nvmlDeviceGetName, handle) or "an NVIDIA GPU"
    memory, unified = _memory(nvml, handle, name, ram_total)
    capability = _asked(nvml, nvml.nvmlDeviceGetCudaComputeCapability, handle)
    power = _asked(nvml, nvml.nvmlDeviceGetPowerUsage, handle)
    limit = _asked(nvml, nvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    reasons = _asked(nvml, nvml.nvmlDeviceGetCurrentClocksEventReasons, handle) or 0
    uuid = _asked(nvml, nvml.nvmlDeviceGetUUID, handle) or ""
    return Gpu(
        vendor="nvidia",
        index=index,
        name=name,
        total=memory and _size(memory.total),
        free=memory and _size(memory.free),
        used=memory and _size(memory.used),
        unified=unified,
        capability=None if capability is None else ".".join(map(str, capability)),
        watts=None if power is None else power / 1000,
        watt_limit=None if limit is None else limit / 1000,
        celsius=_asked(nvml, nvml.nvmlDeviceGetTemperature, handle, nvml.NVML_TEMPERATURE_GPU),
        slowed_by="heat" if reasons & HEAT else "its power supply" if reasons & POWER_BRAKE else None,
        holders=tuple(_holders(nvml, handle, named)),
        visible=visible(index, uuid),
    )


def _memory(nvml: Any, handle: Any, name: str, ram_total: int) -> tuple[Any, bool]:
    """``(memory of its own or None, whether it shares the RAM)``.

    Machines like GB10 answer "not supported", nothing, or about the RAM's size, depending on the driver. A 24 GB card
    in a 16 GB machine reports more than the RAM too: it is told apart by its BAR1 aperture, which only a card on PCIe
    has. Any other refusal (a GPU that was lost, say) leaves the memory unknown, not shared.
    """
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError as error:
        return None, error.value == nvml.NVML_ERROR_NOT_SUPPORTED
    total = _size(memory.total)
    if not total:
        return None, True
    if total >= UNIFIED_SHARE * ram_total:
        known = any(word in name for word in INTEGRATED)
        if known or _asked(nvml, nvml.nvmlDeviceGetBAR1MemoryInfo, handle) is None:
            return None, True
    return memory, False


def _holders(nvml: Any, handle: Any, named: Named) -> Iterable[Holder]:
    """Who holds memory, largest first. A program with both kinds of context is listed in both: once is enough."""
    held: dict[int, int | None] = {}
    for question in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        for process in _asked(nvml, question, handle) or []:
            size = _size(process.usedGpuMemory)
            before = held.get(process.pid)
            held[process.pid] = size if before is None else max(before, size or 0)
    for pid, size in sorted(held.items(), key=lambda item: -(item[1] or 0)):
        name, ours = named(pid)
        yield Holder(pid, name, size, ours)


def _size(value: int | None) -> int | None:
    return None if value is None or not 0 <= value < LARGEST_SIZE else int(value)


def _cuda(nvml: Any) -> tuple[int, int] | None:
    number = _asked(nvml, nvml.nvmlSystemGetCudaDriverVersion_v2)
    return None if number is None else (number // 1000, number % 1000 // 10)


def _asked(nvml: Any, question: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or None where this GPU or driver has none."""
    try:
        return question(*arguments)
    except nvml.NVMLError:
        return None
