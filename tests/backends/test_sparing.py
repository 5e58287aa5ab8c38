"""A stage's process imports bitsandbytes only where something is quantized, and does not look through its imports again."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from pathlib import Path
from engine.backends.sparing import leave_out_bitsandbytes
left_out = leave_out_bitsandbytes(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
import importlib.util
print(left_out, importlib.util.find_spec("bitsandbytes") is None)
"""


@pytest.mark.parametrize(
    "quantization, optimizer, config, left_out",
    [
        ("none", "adamw", {}, True),
        ("4bit", "adamw", {}, False),
        ("none", "paged-adamw-8bit", {}, False),
        ("none", "adamw", {"quantization_config": {"load_in_4bit": True}}, False),
        ("none", "adamw", None, False),
    ],
)
def test_bitsandbytes_is_left_out_where_nothing_is_quantized(quantization, optimizer, config, left_out, tmp_path):
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    words = [sys.executable, "-P", "-c", SCRIPT, quantization, optimizer, str(tmp_path)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert said == [str(left_out), str(left_out)]


ALONE = """
import gc
from pathlib import Path
from engine.backends import open_backend
from engine.backends.interface import LoadSettings
from engine.models.lineage import Base, Lineage
backend = open_backend("pytorch")
settings = LoadSettings("none", "fp32", "none", 8, 16.0, 0.0, "attention", False, 0, False)
backend.alone(settings, "", None)
try:
    backend.load(Lineage(Base("nowhere", "/nonexistent", None, {})), Path("/nonexistent"), settings)
except Exception as error:
    assert gc.isenabled(), error
print(gc.get_freeze_count() > 100_000, len(gc.get_objects()) < 100_000)
"""


def test_what_was_imported_is_not_looked_through_again():
    done = subprocess.run([sys.executable, "-P", "-c", ALONE], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True"], done.stderr
