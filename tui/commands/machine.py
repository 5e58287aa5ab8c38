"""probe, doctor: what the machine has, and what is missing."""

from __future__ import annotations

import argparse
import importlib.util
import json
import shlex
import sys
from dataclasses import asdict

from engine.hardware.card import gpu_words, machine_words
from engine.hardware.doctor import Finding, examine
from engine.hardware.machine import Machine
from engine.hardware.probe import probe_machine
from tui.words import ascii_words, passed_sign, unicode_terminal, warning_sign

GIB = 2**30


def probe(options: argparse.Namespace) -> int:
    machine = probe_machine()
    if options.json:
        print(json.dumps(machine.to_json()))
        return 0
    for name, words in probe_lines(machine):
        _print(f"{name:<12} {words}" if name else f"{'':<12} {words}")
    return 0


def probe_lines(machine: Machine) -> list[tuple[str, str]]:
    """``(heading, words)``; an empty heading continues the one before."""
    lines = [("machine", machine_words(machine)), ("processor", f"{machine.cpu.name}, {machine.cpu.cores} cores")]
    by = f" ({machine.ram.limited_by})" if machine.ram.limited_by else ""
    lines.append(("RAM", f"{machine.ram.available / GIB:.1f} of {machine.ram.total / GIB:.1f} GiB available{by}"))
    for number, gpu in enumerate(machine.gpus):
        lines.append(("GPU" if not number else "", gpu_words(gpu)))
        for holder in gpu.holders:
            size = "an unknown amount" if holder.held is None else f"{holder.held / GIB:.2f} GiB"
            whose = ", a stage of ours" if holder.ours else ""
            lines.append(("", f"  {size} held by {holder.name} ({holder.pid}{whose})"))
    for vendor, driver in machine.drivers.items():
        cuda = f", CUDA {driver.cuda[0]}.{driver.cuda[1]}" if driver.cuda else ""
        lines.append(("driver", driver.error or f"{vendor} {driver.version}{cuda}"))
    if machine.apple:
        apple = machine.apple
        cores = f", {apple.gpu_cores} GPU cores" if apple.gpu_cores else ""
        wired = f"{apple.wired_limit / GIB:.1f} GiB" if apple.wired_limit else "the default"
        lines.append(("GPU", f"{apple.chip}{cores}, {apple.memory / GIB:.0f} GiB unified memory"))
        told = {"metal": "by Metal", "wired limit": "by the wired limit", "estimate": "estimated"}
        room = f"{apple.working_set / GIB:.1f} GiB ({told[apple.working_set_from]})"
        lines.append(("", f"recommended working set {room}; wired limit {wired}"))
    for name, disk in machine.disks.items():
        locked = "" if disk.writable else ", not writable"
        room = f"{disk.free / GIB:.1f} of {disk.total / GIB:.1f} GiB free{locked}"
        lines.append(("disk" if name == "runs" else "", f"{room} for {name} ({disk.path})"))
    lines.append(("power", power_words(machine)))
    for number, (name, package) in enumerate(
        (name, package) for name, package in machine.software.items() if name != "requirements"
    ):
        state = package.error or package.version or "not installed"
        if package.works and name == "torch":
            build = package.facts.get("cuda_build")
            rocm = package.facts.get("rocm_build")
            state += f" (CUDA {build})" if build else f" (ROCm {rocm})" if rocm else " (CPU)"
        lines.append(("libraries" if not number else "", f"{name} {state}"))
    memory = machine.training_memory()
    shared = ", shared with the system" if memory.unified else ""
    room = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB"
    lines.append(("to train", f"{room} on {memory.device} ({memory.name}){shared}"))
    return lines


def power_words(machine: Machine) -> str:
    power = machine.power
    if power.plugged is None and power.battery_percent is None:
        return "no battery"
    percent = "" if power.battery_percent is None else f", battery at {power.battery_percent:.0f} %"
    return ("plugged in" if power.plugged else "on battery") + percent


def doctor(options: argparse.Namespace) -> int:
    """Exit code 1 when something must be mended before training works, else 0."""
    findings = examine(probe_machine(), pip_words())
    if options.model:
        from engine.hardware.hub_access import examine_model

        findings.append(examine_model(options.model))
    well = not any(finding.level == "mend" for finding in findings)
    if options.json:
        print(json.dumps({"ok": well, "findings": [asdict(finding) for finding in findings]}))
        return 0 if well else 1
    for finding in findings:
        for line in finding_lines(finding):
            _print(line)
    if well:
        _print(f"{passed_sign(True)} nothing must be mended")
    return 0 if well else 1


def finding_lines(finding: Finding) -> list[str]:
    sign = {"mend": passed_sign(False), "advice": warning_sign(), "note": "·" if unicode_terminal() else "-"}
    lines = [f"{sign[finding.level]} {finding.says}"]
    if finding.mend:
        lines.append(f"    {finding.mend}")
    return lines


def pip_words() -> str:
    """How packages are installed into the environment that runs us; uv's have no pip of their own."""
    python = shlex.quote(sys.executable)
    return f"{python} -m pip" if importlib.util.find_spec("pip") else f"uv pip --python {python}"


def _print(line: str) -> None:
    print(line if unicode_terminal() else ascii_words(line).replace("·", "-").replace("°", ""))
