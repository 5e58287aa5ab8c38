"""``finetune-tui --help`` against an interpreter that does nothing, in turn."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 21
LIMIT = 4.0


def seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def rows() -> list[str]:
    bare = [sys.executable, "-c", "pass"]
    help_ = [str(Path(sys.executable).with_name("finetune-tui")), "--help"]
    seconds(bare), seconds(help_)
    ratios = [seconds(help_) / seconds(bare) for _ in range(ROUNDS)]
    found = f"{statistics.median(ratios):.2f} (min {min(ratios):.2f}, max {max(ratios):.2f}, n {ROUNDS})"
    return [f"| `--help` against `python -c pass` | {found} | ≤ {LIMIT:.0f} |"]
