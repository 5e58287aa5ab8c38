"""``python -m assets.lab.make``: write the data, train both models, measure what they can do."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from assets.lab.make.datasets import write_datasets

PARTS = ["data", "nano", "model", "measure"]
LAB = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m assets.lab.make", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to make: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--out", type=Path, default=LAB, help="folder to write into (default: the lab's own)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the training steps, for trying things out")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    for part in chosen.parts:
        if part not in PARTS:
            parser.error(f"unknown part {part!r}; accepted: {', '.join(PARTS)}")
    parts = chosen.parts or PARTS
    torch.set_num_threads(chosen.threads)
    started = time.time()
    if "data" in parts:
        write_datasets(chosen.out / "data")
    for name in ("nano", "model"):
        if name in parts:
            from assets.lab.make.train import describe, train

            train(name, chosen.out / name, chosen.scale)
            print(f"{name}: {describe(chosen.out / name)}")
    if "measure" in parts:
        from assets.lab.make.measure import write_figures

        write_figures(chosen.out)
    print(f"done in {(time.time() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
