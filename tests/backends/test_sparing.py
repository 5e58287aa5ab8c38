"""A stage's process imports bitsandbytes only where something is quantized."""

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
