"""Every vendor's probe on recorded answers, and the whole probe on the machine that runs the tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from engine.hardware import card
from engine.hardware import probe as whole
from engine.hardware.amd import probe_amd
from engine.hardware.apple import probe_apple
from engine.hardware.host import cpu_name, distribution, models_cache, nvidia_on_the_bus, probe_disk, probe_ram
from engine.hardware.machine import Cpu, Disk, Machine, Power, Ram
from engine.hardware.nvidia import probe_nvidia, visible_devices
from engine.hardware.software import Survey
from tests.hardware.decoys import light
from tests.hardware.recorded import APPLE, NVML, RecordedNvml, recorded_commands, sys_tree

GIB = 2**30
PROGRAMS = {4100: ("blender", False), 4200: ("python", True), 900: ("Xorg", False)}


def nvidia(machine):
    nvml = RecordedNvml(machine)
    gpus, driver = probe_nvidia(nvml, nvml.ram, lambda pid: PROGRAMS.get(pid, ("unknown", False)))
    assert not nvml.open  # NVML is always closed again
    return gpus, driver


# ---- NVIDIA ------------------------------------------------------------------------------------------------------------


def test_a_card_with_everything():
    (gpu,), driver = nvidia("rtx-3090")
    assert (gpu.name, gpu.total, gpu.free, gpu.used) == ("NVIDIA GeForce RTX 3090", 24 * GIB, 20 * GIB, 4 * GIB)
    assert (gpu.capability, gpu.watts, gpu.watt_limit, gpu.celsius) == ("8.6", 121.5, 350, 61)
    assert (driver.version, driver.cuda, driver.error) == ("580.95.05", (13, 0), None)
    assert not gpu.unified and gpu.slowed_by is None  # at its power cap, as every card under load
    held = [(holder.name, holder.held, holder.ours) for holder in gpu.holders]
    assert held == [("blender", 2560 * 2**20, False), ("python", 1024 * 2**20, True), ("Xorg", 300 * 2**20, False)]


def test_a_real_machines_answers():
    (gpu,), driver = nvidia("recorded-h100")
    assert (gpu.name, gpu.total, gpu.capability) == ("NVIDIA H100 80GB HBM3", 85520809984, "9.0")
    assert (gpu.watts, gpu.watt_limit, gpu.celsius, gpu.holders) == (70.3, 700, 35, ())
    assert (driver.version, driver.cuda, driver.error) == ("580.159.04", (13, 0), None)
    assert not gpu.unified and gpu.slowed_by is None  # idle


def test_a_lost_card_does_not_hide_the_other():
    (gpu,), driver = nvidia("two-cards-one-lost")
    assert (gpu.index, gpu.name, gpu.slowed_by) == (1, "NVIDIA GeForce RTX 4090", "heat")
    assert "GPU 0" in driver.error and "lost" in driver.error and driver.version


@pytest.mark.parametrize(
    "machine, unified",
    [
        ("gb10-not-supported", True), ("gb10-reports-the-ram", True), ("unknown-integrated", True),
        ("large-card-in-a-small-machine", False), ("rtx-3090", False), ("wsl", False), ("memory-lost", False),
    ],
)  # fmt: skip
def test_who_shares_the_ram(machine, unified):
    (gpu,), _ = nvidia(machine)
    assert gpu.unified == unified
    assert (gpu.total is None) == (unified or machine == "memory-lost")


def test_wsl_names_holders_without_their_share():
    (gpu,), _ = nvidia("wsl")
    assert [(holder.pid, holder.held) for holder in gpu.holders] == [(77, None), (78, None)]


def test_an_old_driver_answers_what_it_can():
    (gpu,), driver = nvidia("old-driver")
    assert (gpu.capability, gpu.holders, gpu.celsius, driver.cuda) == ("6.1", (), None, (11, 4))


@pytest.mark.parametrize(
    "machine, said",
    [
        ("no-library", None),
        ("driver-not-loaded", None),
        ("driver-updated", "mismatch"),
        ("no-permission", "Permissions"),
    ],
)
def test_without_an_answer(machine, said):
    gpus, driver = nvidia(machine)
    assert gpus == [] and (driver is None if said is None else said in driver.error)


def test_a_driver_without_cards():
    gpus, driver = nvidia("no-devices")
    assert gpus == [] and driver.error is None


@pytest.mark.parametrize(
    "setting, seen",
    [
        (None, [0, 1]), ("1", [1]), ("0,1", [0, 1]), ("", []), ("-1", []), ("GPU-ab", [1]), ("1,-1,0", [1]), ("none", []),
    ],
)  # fmt: skip
def test_cuda_visible_devices(setting, seen):
    visible = visible_devices(setting)
    assert [index for index, uuid in enumerate(("GPU-xyz", "GPU-abc")) if visible(index, uuid)] == seen


def test_hidden_cards_are_not_trained_on(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (gpu,), _ = nvidia("rtx-3090")
    assert not gpu.visible
    assert machine_of(gpus=(gpu,)).training_memory().device == "cpu"


def test_the_recorded_questions_are_those_that_nvidia_ml_py_has():
    import pynvml

    asked = {name for name, machine in NVML.items() if isinstance(machine, dict) for name in machine} | {
        name
        for machine in NVML.values()
        if isinstance(machine, dict)
        for device in machine["devices"]
        for name in device
    }
    assert all(hasattr(pynvml, name) for name in asked if name.startswith("nvml"))


# ---- Apple -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "machine, gib, told, wired",
    [
        ("m2-ultra-64gb", 48, "estimate", None),
        ("m1-16gb-wired", 14, "wired limit", 14),
        ("m1-macos-13", 6, "wired limit", 6),
        ("rosetta", 32 * 2 / 3, "estimate", None),
    ],
)
def test_unified_memory_of_a_mac(machine, gib, told, wired):
    apple = probe_apple(recorded_commands(machine))
    assert apple.working_set / GIB == pytest.approx(gib, abs=0.01) and apple.working_set_from == told
    assert apple.wired_limit == (wired and wired * GIB) and apple.memory == int(APPLE[machine]["hw.memsize"])
    assert apple.translated == (machine == "rosetta")


def test_metal_knows_better_than_the_estimate():
    apple = probe_apple(recorded_commands("m2-ultra-64gb"), 51539607552)
    assert (apple.chip, apple.gpu_cores, apple.working_set_from) == ("Apple M2 Ultra", 60, "metal")
    memory = machine_of(apple=apple, ram=Ram(64 * GIB, 20 * GIB)).training_memory()
    assert (memory.device, memory.available, memory.unified) == ("metal", 20 * GIB, True)


def test_an_intel_mac_has_no_unified_memory():
    assert probe_apple(recorded_commands("intel")) is None


# ---- AMD and the bus ---------------------------------------------------------------------------------------------------


def test_an_amd_card(tmp_path):
    (gpu,), driver = probe_amd(sys_tree(tmp_path, "rx-7900-xtx"), 32 * GIB)
    assert (gpu.name, gpu.capability, gpu.free) == ("Radeon RX 7900 XTX", "gfx1100", 24 * 10**9)
    assert (gpu.watts, gpu.watt_limit, gpu.celsius, gpu.unified) == (43, 327, 47, False)
    assert driver.version == "6.10.5"


def test_an_integrated_amd_chip_shares_the_ram(tmp_path):
    (gpu,), _ = probe_amd(sys_tree(tmp_path, "integrated"), 128 * GIB)
    assert (gpu.unified, gpu.total, gpu.name, gpu.capability, gpu.celsius) == (
        True,
        None,
        "AMD GPU 0x1586",
        "gfx1151",
        None,
    )


def test_others_are_not_amd(tmp_path):
    assert probe_amd(sys_tree(tmp_path, "intel-only"), 16 * GIB) == ([], None)


def test_a_card_without_driver_is_seen_on_the_bus(tmp_path, monkeypatch):
    folder = sys_tree(tmp_path / "sys", "nvidia-without-driver")
    assert nvidia_on_the_bus(folder) and not nvidia_on_the_bus(sys_tree(tmp_path / "other", "nvidia-sound-only"))
    monkeypatch.setitem(sys.modules, "pynvml", RecordedNvml("no-library"))
    gpus, drivers = whole.probe_gpus(32 * GIB, folder)
    assert gpus == [] and "no driver" in drivers["nvidia"].error


# ---- the host ----------------------------------------------------------------------------------------------------------


def test_a_containers_limit_counts(tmp_path):
    group = tmp_path / "fs" / "user" / "job"
    group.mkdir(parents=True)
    (tmp_path / "mine").write_text("0::/user/job\n")
    (group / "memory.max").write_text("max\n")
    (group.parent / "memory.max").write_text(f"{300 * 2**20}\n")
    for folder in (group, group.parent):
        (folder / "memory.current").write_text(f"{200 * 2**20}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {50 * 2**20}\n")
    ram = probe_ram(tmp_path / "fs", tmp_path / "mine")
    assert (ram.total, ram.available) == (300 * 2**20, 150 * 2**20) and "container" in ram.limited_by
    free = probe_ram(tmp_path / "nothing", tmp_path / "mine")
    assert free.limited_by is None and 0 < free.available <= free.total


def test_the_old_control_groups_count_too(tmp_path):
    (tmp_path / "fs" / "memory").mkdir(parents=True)
    (tmp_path / "mine").write_text("7:memory:/docker/abc\n")
    (tmp_path / "fs/memory/memory.limit_in_bytes").write_text(str(100 * 2**20))
    (tmp_path / "fs/memory/memory.usage_in_bytes").write_text(str(40 * 2**20))
    assert probe_ram(tmp_path / "fs", tmp_path / "mine").available == 60 * 2**20
    (tmp_path / "fs/memory/memory.limit_in_bytes").write_text("9223372036854771712")
    assert probe_ram(tmp_path / "fs", tmp_path / "mine").limited_by is None


def test_disk_of_a_folder_that_is_not_there_yet(tmp_path):
    disk = probe_disk(tmp_path / "a" / "b")
    assert disk.total > disk.free > 0 and disk.writable and not (tmp_path / "a").exists()


def test_small_things(tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: AMD  Ryzen 9 5950X\n")
    (tmp_path / "os-release").write_text('NAME="Ubuntu"\nID=ubuntu\n')
    assert cpu_name(tmp_path / "cpuinfo") == "AMD Ryzen 9 5950X" and cpu_name(tmp_path / "none")
    assert distribution(tmp_path / "os-release") == "ubuntu" and distribution(tmp_path / "none") is None
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert models_cache() == tmp_path / "hub"


# ---- libraries ---------------------------------------------------------------------------------------------------------


def test_the_survey_tells_what_is_installed_here():
    from importlib.metadata import version

    found = Survey().result()
    assert found["torch"].version == version("torch") and found["torch"].works
    assert found["torch"].facts["cuda_available"] is False
    assert found["trl"].version == version("trl") and found["requirements"].facts["unmet"] == []


def crashing(ending):
    code = f"print('noise'); print('{{\"begin\": \"torch\"}}', flush=True); {ending}"
    return [sys.executable, "-c", code]


@pytest.mark.parametrize(
    "ending, said",
    [
        ("import os; os.abort()", "SIGABRT"),
        ("raise SystemExit(3)", "code 3"),
        ("import time; time.sleep(60)", "more than"),
    ],
)
def test_a_library_that_kills_or_hangs_the_survey_is_named(ending, said):
    started = time.monotonic()
    found = Survey(crashing(ending)).result(timeout=3)
    assert said in found["torch"].error and not found["torch"].works and time.monotonic() - started < 30


def test_a_library_that_raises_is_named(tmp_path):
    """A decoy torch that cannot be imported, in front of the real one."""
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); "
               "from engine.backends.survey import main; main()"]  # fmt: skip
    found = Survey(command).result()
    assert "libcudart.so.13" in found["torch"].error and found["torch"].version


# ---- the whole ---------------------------------------------------------------------------------------------------------


def machine_of(**fields):
    usual = {
        "system": "Linux", "release": "6.8", "architecture": "x86_64", "distribution": "ubuntu", "wsl": False,
        "python": "3.12.3", "cpu": Cpu("a processor", 8, 16), "ram": Ram(32 * GIB, 24 * GIB),
        "disks": {"runs": Disk("/runs", 500 * GIB, 200 * GIB, True)}, "power": Power(None),
    }  # fmt: skip
    return Machine(**usual | fields)


def test_training_memory():
    (card_gpu,), _ = nvidia("rtx-3090")
    (gb10,), _ = nvidia("gb10-reports-the-ram")
    memory = machine_of(gpus=(card_gpu,)).training_memory()
    assert (memory.device, memory.available, memory.unified) == ("cuda:0", 20 * GIB, False)
    memory = machine_of(gpus=(gb10,), ram=Ram(121 * GIB, 110 * GIB)).training_memory()
    assert (memory.available, memory.unified) == (110 * GIB, True)  # not the driver's 7.4 GiB "free"
    assert machine_of().training_memory().available == 24 * GIB


def test_the_line_on_home(monkeypatch):
    """As drawn in a thread of the app: names who else holds memory, and loads nothing heavy."""
    monkeypatch.setitem(sys.modules, "pynvml", RecordedNvml("rtx-3090"))
    monkeypatch.setattr(whole, "program", lambda pid: PROGRAMS[pid])
    line = card.machine_line()
    assert "NVIDIA GeForce RTX 3090 20.0 of 24.0 GiB free (2.5 held by blender)" in line
    monkeypatch.setitem(sys.modules, "pynvml", RecordedNvml("no-library"))
    assert "no GPU: the CPU trains" in card.machine_line()


def cli(*words, **environment):
    command = [sys.executable, "-P", "-m", "tui.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env={**os.environ, **environment})


def test_the_command(home, tmp_path):
    decoys = light(tmp_path / "decoys")
    done = cli("probe", "--json", **decoys)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ram"]["available"] <= found["ram"]["total"] and found["software"]["torch"]["version"]
    assert found["disks"]["runs"]["path"] == str(home) and not home.exists()
    assert found["training_memory"]["available"] > 0
    done = cli("probe", PYTHONIOENCODING="ascii", **decoys)
    assert done.returncode == 0 and "GiB available" in done.stdout and "to train" in done.stdout
