"""The machine in one line, for the top of a screen: cheap enough to be asked again every half minute."""

from __future__ import annotations

import platform
import sys

from engine.hardware.machine import Gpu, Machine

GIB = 2**30
WORTH_SAYING = GIB // 2
"""Memory that other programs hold is named from here on; a desktop's few hundred MiB are not."""


def machine_line() -> str:
    """Such as ``Linux x86_64, 8 cores, 24.1 of 31.2 GiB free, RTX 3090 23.1 of 24.0 GiB free``."""
    from engine.hardware.apple import probe_apple, run_command
    from engine.hardware.device import physical_cores
    from engine.hardware.host import probe_power, probe_ram
    from engine.hardware.probe import probe_gpus

    ram, power = probe_ram(), probe_power()
    gpus, drivers = probe_gpus(ram.total)
    apple = probe_apple(run_command) if sys.platform == "darwin" else None
    parts = [
        f"{platform.system()} {platform.machine()}",
        f"{physical_cores()} cores",
        f"{ram.available / GIB:.1f} of {ram.total / GIB:.1f} GiB free",
        *(short_words(gpu) for gpu in gpus),
        *(f"{name} driver: {driver.error}" for name, driver in drivers.items() if driver.error),
    ]
    if apple:
        parts.append(f"{apple.chip} for up to {apple.working_set / GIB:.0f} GiB")
    elif not gpus and not drivers:
        parts.append("no GPU: the CPU trains")
    if power.plugged is False:
        parts.append("on battery")
    return ", ".join(parts)


def short_words(gpu: Gpu) -> str:
    """``NVIDIA GeForce RTX 3090 21.0 of 24.0 GiB free (2.4 held by blender)``."""
    held = [holder for holder in gpu.holders if not holder.ours and (holder.held or 0) >= WORTH_SAYING]
    others = f" ({held[0].held / GIB:.1f} held by {held[0].name})" if held and held[0].held else ""
    return f"{gpu.name}{_room(gpu)}{others}"


def gpu_words(gpu: Gpu) -> str:
    """All that is known of one GPU, in a line."""
    parts = [f"{gpu.index}: {gpu.name}{_room(gpu)}"]
    if gpu.capability:
        parts.append(f"compute capability {gpu.capability}" if gpu.vendor == "nvidia" else gpu.capability)
    if gpu.watts is not None:
        parts.append(f"{gpu.watts:.0f} W" + (f" of {gpu.watt_limit:.0f}" if gpu.watt_limit else ""))
    if gpu.celsius is not None:
        parts.append(f"{gpu.celsius:.0f} °C")
    if gpu.slowed_by:
        parts.append(f"slowed down by {gpu.slowed_by}")
    if not gpu.visible:
        parts.append("hidden by CUDA_VISIBLE_DEVICES")
    return ", ".join(parts)


def machine_words(machine: Machine) -> str:
    """``Linux 6.8 x86_64 (ubuntu, WSL), Python 3.12.3``."""
    about = ", ".join(part for part in (machine.distribution, "WSL" if machine.wsl else None) if part)
    return (
        f"{machine.system} {machine.release} {machine.architecture}"
        + (f" ({about})" if about else "")
        + f", Python {machine.python}"
    )


def _room(gpu: Gpu) -> str:
    if gpu.unified:
        return ", memory shared with the system"
    if gpu.total is None or gpu.free is None:
        return ", memory unknown"
    return f" {gpu.free / GIB:.1f} of {gpu.total / GIB:.1f} GiB free"
