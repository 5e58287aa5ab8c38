"""The commands through the real nvidia-ml-py, on a driver library made here: what NVML's C functions give arrives whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.hardware.decoys import light
from tests.hardware.test_probe import cli

GIB = 2**30
SOURCE = Path(__file__).with_name("nvml_stand_in.c")


@pytest.fixture
def driver(tmp_path):
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(library), str(SOURCE)], check=True, timeout=60)
    return {"LD_LIBRARY_PATH": f"{tmp_path}:{os.environ.get('LD_LIBRARY_PATH', '')}"}


def test_the_probe_sees_the_card(driver, tmp_path):
    driver |= light(tmp_path / "decoys")
    done = cli("probe", "--json", **driver)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    (gpu,) = found["gpus"]
    assert (gpu["name"], gpu["total"], gpu["free"]) == ("NVIDIA GeForce RTX 3090", 24 * GIB, 20 * GIB)
    assert (gpu["capability"], gpu["watts"], gpu["watt_limit"], gpu["celsius"]) == ("8.6", 119, None, 64)
    assert gpu["slowed_by"] is None and not gpu["unified"]
    (holder,) = gpu["holders"]
    assert (holder["pid"], holder["held"], holder["name"]) == (os.getpid(), 3 * GIB, psutil.Process().name())
    assert found["drivers"]["nvidia"]["cuda"] == [12, 4] and found["training_memory"]["available"] == 20 * GIB
    said = cli("probe", **driver).stdout
    assert "0: NVIDIA GeForce RTX 3090 20.0 of 24.0 GiB free, compute capability 8.6, 119 W, 64 °C" in said


def test_the_doctor_sees_what_does_not_match(driver, tmp_path):
    """A torch that is built for the CPU beside a card of NVIDIA's."""
    driver |= light(tmp_path / "decoys")
    done = cli("doctor", "--json", **driver)
    codes = [item["code"] for item in json.loads(done.stdout)["findings"] if item["level"] == "mend"]
    assert done.returncode == 1 and "cpu-torch" in codes, done.stdout
    held = [item for item in json.loads(done.stdout)["findings"] if item["code"] == "vram-held"]
    assert "3.0 GiB" in held[0]["says"]
