"""What a forecast is held against when no machine is named: the probe's answer, on recorded machines and on this one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from engine.forecast.hardware import this_machine
from engine.hardware import probe
from engine.hardware.machine import Machine
from engine.hardware.nvidia import probe_nvidia
from tests.hardware.recorded import RecordedNvml

MIB = 2**20


def seen(monkeypatch, **changes):
    machine: Machine = replace(probe.probe_machine(software=False), gpus=(), apple=None)
    monkeypatch.setattr(probe, "probe_machine", lambda software=True: replace(machine, **changes))
    return machine


def test_a_card_is_priced_by_what_is_free_on_it(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # the tests' own, which would hide it
    nvml = RecordedNvml("rtx-3090")
    gpus, _ = probe_nvidia(nvml, nvml.ram, lambda pid: ("python", True))
    seen(monkeypatch, gpus=tuple(gpus))
    found = this_machine()
    assert (found.kind, found.total_mib, found.available_mib) == ("cuda", 24 * 1024, 20 * 1024)
    assert found.compute_capability == 86 and found.context_mib > 0


def test_without_a_card_it_is_the_ram_that_is_available(monkeypatch):
    machine = seen(monkeypatch)
    found = this_machine()
    assert found.kind == "cpu" and found.available_mib == pytest.approx(machine.ram.available / MIB)
