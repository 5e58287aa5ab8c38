"""``make bench``: every benchmark in turn, as the rows of the table in the README."""

from __future__ import annotations

import importlib
import platform
import sys

import psutil

BENCHMARKS = (
    "bench_help", "bench_event_log", "bench_step_rate", "bench_edits", "bench_mlx", "bench_chat", "bench_app",
    "bench_forecast", "bench_time_forecast", "bench_verify", "bench_mlx_generation", "bench_mlx_memory",
    "bench_speedups",
)  # fmt: skip


def main() -> None:
    cores, memory = psutil.cpu_count(), psutil.virtual_memory().total / 2**30
    print(
        f"{platform.processor() or platform.machine()}, {cores} cores, {memory:.0f} GiB, Python {sys.version.split()[0]}"
    )
    print("| what | measured | wanted |\n|---|---|---|")
    for name in sys.argv[1:] or BENCHMARKS:
        for row in importlib.import_module(f"tests.bench.{name}").rows():
            print(row, flush=True)


if __name__ == "__main__":
    main()
