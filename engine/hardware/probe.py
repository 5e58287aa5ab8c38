"""The whole machine, from the probes of its parts."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from engine.hardware.amd import probe_amd
from engine.hardware.apple import probe_apple, run_command
from engine.hardware.host import (
    distribution,
    models_cache,
    nvidia_on_the_bus,
    probe_cpu,
    probe_disk,
    probe_power,
    probe_ram,
)
from engine.hardware.machine import Driver, Gpu, Machine
from engine.hardware.nvidia import probe_nvidia
from engine.hardware.software import Survey

STAGE_MODULE = "engine.stage"


def probe_machine(software: bool = True) -> Machine:
    """Everything that can be known. ``software=False`` leaves out the training libraries (they take seconds)."""
    from engine.runs.directory import home

    survey = Survey() if software else None
    ram = probe_ram()
    gpus, drivers = probe_gpus(ram.total)
    packages = survey.result() if survey else {}
    mac = sys.platform == "darwin"
    told = packages["mlx"].facts.get("recommended_working_set") if "mlx" in packages else None
    release = platform.mac_ver()[0] if mac else platform.release()
    return Machine(
        system="macOS" if mac else platform.system(),
        release=release,
        architecture=platform.machine(),
        distribution=distribution(),
        wsl="microsoft" in platform.release().lower(),
        python=platform.python_version(),
        cpu=probe_cpu(),
        ram=ram,
        disks={"runs": probe_disk(home()), "models": probe_disk(models_cache())},
        power=probe_power(),
        gpus=tuple(gpus),
        drivers=drivers,
        apple=probe_apple(run_command, told) if mac else None,
        software=packages,
    )


def probe_gpus(ram_total: int, sys_folder: Path = Path("/sys")) -> tuple[list[Gpu], dict[str, Driver]]:
    """The discrete and integrated GPUs of every vendor, and a word on each vendor's driver."""
    import pynvml

    drivers: dict[str, Driver] = {}
    nvidia, driver = probe_nvidia(pynvml, ram_total, program)
    if driver is None and nvidia_on_the_bus(sys_folder):
        driver = Driver(error="no driver is loaded for it")
    if driver is not None:
        drivers["nvidia"] = driver
    amd, driver = probe_amd(sys_folder, ram_total)
    if driver is not None:
        drivers["amd"] = driver
    return [*nvidia, *amd], drivers


def program(pid: int) -> tuple[str, bool]:
    """``(name, whether it is a stage of ours)`` of a process, from the system."""
    import psutil

    try:
        process = psutil.Process(pid)
        name = process.name()
    except psutil.Error:  # of another container or user, or just gone
        return "a program that cannot be seen from here", False
    try:
        return name, STAGE_MODULE in process.cmdline()
    except psutil.Error:
        return name, False
