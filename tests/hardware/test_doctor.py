"""The doctor names what is wrong and the command that mends it; a healthy machine has nothing to mend."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from engine.hardware.doctor import GIB, examine, runs_on
from engine.hardware.machine import Apple, Disk, Driver, Gpu, Holder, Package, Power, Ram
from recipes.resources import resolve_model
from tests.hardware.decoys import light
from tests.hardware.test_probe import cli, machine_of
from tests.models.hub import Hub

CARD = Gpu("nvidia", 0, "NVIDIA GeForce RTX 3090", 24 * GIB, 23 * GIB, GIB, capability="8.6", watts=20, watt_limit=350)
CUDA = {"cuda_build": "13.0", "cuda_available": True, "targets": ["sm_75", "sm_80", "sm_86", "sm_90", "compute_120"]}
TORCH = Package("2.13.0+cu130", None, CUDA)
QUANTIZATION = Package("0.50.2", None, {"cuda_library": True})
MAC = Apple("Apple M2 Max", 64 * GIB, 48 * GIB, "metal", None, 38)
MLX = Package("0.32.4", None, {"metal": True})


def software(**packages):
    return {"torch": TORCH, "bitsandbytes": QUANTIZATION, "requirements": Package(facts={"unmet": []})} | packages


def gpu_machine(**fields):
    usual = {"gpus": (CARD,), "drivers": {"nvidia": Driver("580.95.05", (13, 0))}, "software": software()}
    return machine_of(**usual | fields)


def mac(**fields):
    usual = {"system": "macOS", "release": "15.4", "distribution": None, "apple": MAC, "software": {"mlx": MLX}}
    return machine_of(**usual | fields)


def cpu_torch(**facts):
    return software(
        torch=Package("2.13.0+cpu", None, {"cuda_build": None, "cuda_available": False, "targets": []} | facts)
    )


HEALTHY = {
    "a GPU machine": gpu_machine(),
    "a CPU machine": machine_of(software=cpu_torch()),
    "a Mac": mac(),
    "the libraries were not asked for": gpu_machine(software={}),
    "memory held by a stage of ours": gpu_machine(
        gpus=(replace(CARD, holders=(Holder(1, "python", 20 * GIB, ours=True),)),)
    ),
}
NO_CUDA = {**CUDA, "cuda_available": False, "warnings": ["CUDA unknown error"]}
SICK = {
    "requirement": (
        gpu_machine(software=software(requirements=Package(facts={"unmet": [
            {"name": "trl", "wanted": "<2,>=1.16", "found": "0.9.1"}
        ]}))), "mend", "trl 0.9.1", "uv pip install 'trl<2,>=1.16'",
    ),
    "no-torch": (machine_of(software=software(torch=Package())), "mend", "not installed", "uv pip install torch"),
    "broken-torch": (
        machine_of(software=software(torch=Package("2.13.0", "OSError: libcudart"))), "mend", "libcudart",
        "uv pip install --force-reinstall torch==2.13.0",
    ),
    "cpu-torch": (
        gpu_machine(software=cpu_torch()), "mend", "RTX 3090 is there, but torch 2.13.0+cpu is built for the CPU",
        "uv pip install --force-reinstall torch==2.13.0",
    ),
    "old-driver": (
        gpu_machine(drivers={"nvidia": Driver("470.256.02", (11, 4))}), "mend", "needs driver 580 or newer",
        "sudo ubuntu-drivers install && sudo reboot",
    ),
    "no-cuda": (
        gpu_machine(software=software(torch=Package("2.13.0", None, NO_CUDA))), "mend", "CUDA unknown error", "--force",
    ),
    "hidden-gpu": (
        gpu_machine(gpus=(replace(CARD, visible=False),)), "mend", "hides every GPU", "unset CUDA_VISIBLE_DEVICES",
    ),
    "old-gpu": (
        gpu_machine(gpus=(replace(CARD, capability="6.1", name="GTX 1080"), replace(CARD, index=1))), "mend",
        "no code for GTX 1080", "CUDA_VISIBLE_DEVICES=1",
    ),
    "no-bitsandbytes": (
        gpu_machine(software=software(bitsandbytes=Package())), "mend", "no 4-bit", "uv pip install bitsandbytes",
    ),
    "bitsandbytes-without-cuda": (
        gpu_machine(software=software(bitsandbytes=Package("0.50.2", None, {"cuda_library": False}))), "mend",
        "no library for CUDA 13.0", "--no-deps bitsandbytes",
    ),
    "torch-without-rocm": (
        machine_of(gpus=(replace(CARD, vendor="amd", name="RX 7900"),), software=cpu_torch(rocm_build=None)), "mend",
        "not built for ROCm", "ROCm build",
    ),
    "driver": (
        machine_of(drivers={"nvidia": Driver(error="driver/library version mismatch")}), "mend", "mismatch", "sudo reboot",
    ),
    "rosetta": (mac(apple=replace(MAC, translated=True)), "mend", "Rosetta", "arch -arm64"),
    "old-macos": (mac(release="13.6"), "mend", "macOS 13.6", "softwareupdate"),
    "no-mlx": (mac(software={"mlx": Package()}), "mend", "not installed", "uv pip install --upgrade mlx mlx-lm"),
    "mlx-without-metal": (mac(software={"mlx": Package("0.32.4", None, {"metal": False})}), "mend", "Metal", "mlx-metal"),
    "wired-limit": (mac(apple=replace(MAC, wired_limit=63 * GIB)), "advice", "90 %", "iogpu.wired_limit_mb=0"),
    "disk-runs": (
        gpu_machine(disks={"runs": Disk("/runs", 100 * GIB, 2 * GIB, True)}), "mend", "2.0 GiB free", "FINETUNE_TUI_HOME",
    ),
    "disk-models": (
        gpu_machine(disks={"models": Disk("/hub", 100 * GIB, 20 * GIB, True)}), "advice", "20.0 GiB free", "hf cache prune",
    ),
    "ram": (gpu_machine(ram=Ram(8 * GIB, 2 * GIB, "the container's limit")), "advice", "container", "close"),
    "vram-held": (
        gpu_machine(gpus=(replace(CARD, holders=(Holder(7, "blender", 3 * GIB), Holder(8, "Xorg", None))),)), "advice",
        "blender (7) 3.0 GiB", "kill 7",
    ),
    "battery": (gpu_machine(power=Power(False, 12)), "mend", "12 %", "plug it in"),
    "heat": (gpu_machine(gpus=(replace(CARD, slowed_by="heat", celsius=93),)), "advice", "93 °C", "nvidia-smi -i 0 -pl 280"),
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_to_mend(name):
    assert [finding for finding in examine(HEALTHY[name]) if finding.level != "note"] == []


@pytest.mark.parametrize("code", SICK)
def test_what_is_wrong_is_named_with_its_mend(code):
    machine, level, says, mend = SICK[code]
    findings = {finding.code: finding for finding in examine(machine, "uv pip")}
    found = findings[code]
    assert found.level == level and says in found.says and mend in found.mend
    assert [
        other for other in findings.values() if other.level == "mend" and other is not found
    ] == []  # one cause, once


def test_what_must_be_mended_comes_first():
    machine = gpu_machine(power=Power(False, 80), software=cpu_torch())
    assert [finding.code for finding in examine(machine)] == ["cpu-torch", "battery"]


@pytest.mark.parametrize(
    "word, said", [("wsl", "wsl --shutdown"), ("fedora", "akmod-nvidia"), ("slackware", "vendor's page")]
)
def test_the_command_is_the_systems_own(word, said):
    machine = gpu_machine(drivers={"nvidia": Driver("470", (11, 4))}, wsl=word == "wsl", distribution=word)
    assert said in examine(machine)[0].mend


@pytest.mark.parametrize(
    "capability, targets, runs",
    [
        ("8.6", ["sm_80"], True), ("8.6", ["sm_89"], False), ("8.9", ["sm_86"], True), ("6.1", ["sm_75", "sm_80"], False),
        ("12.0", ["sm_90"], False), ("12.0", ["sm_90", "compute_90"], True), ("12.1", ["sm_120"], True),
        ("9.0", ["sm_90a"], True), ("9.1", ["sm_90a"], False), (None, ["sm_90"], True), ("8.6", [], True),
    ],
)  # fmt: skip
def test_which_builds_have_code_for_a_gpu(capability, targets, runs):
    assert runs_on(replace(CARD, capability=capability), targets) == runs


# ---- the command -------------------------------------------------------------------------------------------------------


def test_the_command_on_this_machine(home, tmp_path):
    """Whatever this machine is: the exit code and the findings agree, and nothing is created."""
    done = cli("doctor", "--json")
    found = json.loads(done.stdout)
    assert found["ok"] == (done.returncode == 0) == (not any(item["level"] == "mend" for item in found["findings"]))
    assert done.returncode in (0, 1), done.stderr
    done = cli("doctor", "--model", "lab", PYTHONIOENCODING="ascii", **light(tmp_path / "decoys"))
    assert "`lab` is on this machine" in done.stdout and not home.exists()


def test_a_gated_model_without_token_offline(tmp_path):
    words = ("doctor", "--json", "--model", "meta-llama/Llama-3.1-8B")
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "HF_TOKEN": "", "HUGGING_FACE_HUB_TOKEN": ""}
    environment |= light(tmp_path / "decoys")
    done = cli(*words, **environment)
    finding = json.loads(done.stdout)["findings"][-1]
    assert done.returncode == 1 and finding["code"] == "gated-model" and "hf auth login" in finding["mend"]
    (tmp_path / "token").write_text("hf_notreallyatoken")
    done = cli(*words, **environment)
    assert json.loads(done.stdout)["findings"][-1]["level"] == "note" and "notreally" not in done.stdout


@pytest.fixture
def hub():
    nano = resolve_model("lab-nano", Path("."))
    hub = Hub({path.name: path.read_bytes() for path in nano.iterdir()}, large={"model.safetensors", "tokenizer.json"})
    yield hub
    hub.close()


@pytest.mark.parametrize("token, level, said", [("", "mend", "licence to be accepted"), ("hf_x", "note", "can be had")])
def test_a_gated_model_asked_of_the_hub(hub, tmp_path, token, level, said):
    hub.gated = True
    done = cli(
        "doctor", "--json", "--model", "owner/tiny",
        HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="0", HF_HOME=str(tmp_path), HF_TOKEN=token,
        **light(tmp_path / "decoys"),
    )  # fmt: skip
    finding = json.loads(done.stdout)["findings"][-1]
    assert finding["level"] == level and said in finding["says"], done.stderr
    assert all("safetensors" not in path for _, path, _ in hub.requests)  # nothing was downloaded


def test_a_hub_that_does_not_answer(tmp_path):
    done = cli(
        "doctor", "--json", "--model", "google/gemma-3-1b-it",
        HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0", HF_HOME=str(tmp_path), HF_TOKEN="",
        **light(tmp_path / "decoys"),
    )  # fmt: skip
    finding = json.loads(done.stdout)["findings"][-1]
    assert finding["code"] == "gated-model" and done.returncode == 1
