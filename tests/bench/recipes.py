"""Library recipes on the lab, to their ends, with several seeds: method, target, what was measured, how it ended.

    python -m tests.bench.recipes [NAMES] --seeds 5 --home FOLDER [--backend mlx] [--table]

Runs are kept in FOLDER, one home for each recipe and seed: what came to its end there is not run again, and what was
interrupted is resumed. ``--table`` runs nothing and tables what is there. Ten recipes take minutes each, strategies
more: all of them with five seeds are some hours.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.runs.directory import RunDirectory
from engine.runs.events import GateEvent
from recipes.load import library
from tests.bench.runs import finished, run_to_end, seconds

SHARES = (
    "accuracy", "accuracy_gain", "token_accuracy", "preferred_share", "preferred_share_gain", "broken_share",
    "retention", "retention_worst", "step_correctness", "final_correctness", "verifiability", "clipped_share",
    "abstention_recall", "abstention_precision", "accuracy_kept", "hallucination_rate", "refusal_rate", "side_effects",
    "ece_cut",
)  # fmt: skip
"""Gates that are said in per cent."""


def home_of(folder: Path, name: str, seed: int, backend: str | None) -> Path:
    return folder / "-".join([name, str(seed), *([backend] if backend else [])])


def value(name: str, number: float) -> str:
    if name in SHARES:
        return f"{100 * number:.1f} %"
    return f"{number:.3f}" if abs(number) < 1 else f"{number:.2f}"


def target(gate: GateEvent) -> str:
    words = gate.name.replace("_", " ")
    for sign, limit in (("≥", gate.min), ("≤", gate.max)):
        if limit is not None:
            words += f" {sign} {100 * limit:g} %" if gate.name in SHARES else f" {sign} {limit:g}"
    return words


def measured(gates: Sequence[GateEvent]) -> str:
    """Mean, least and greatest over the seeds, and what each was measured on."""
    values = [float(gate.value) for gate in gates]
    name = gates[0].name
    text = value(name, sum(values) / len(values))
    if len(values) > 1:
        text += f" ({value(name, min(values))} to {value(name, max(values))})"
    sizes = sorted({gate.n for gate in gates})
    text += f", n {sizes[0]}" + (f" to {sizes[-1]}" if len(sizes) > 1 else "")
    failed = sum(not gate.passed for gate in gates)
    return text + (f", **missed in {failed} of {len(gates)}**" if failed else "")


def rows_of(name: str, homes: Sequence[Path], runs: Sequence[RunDirectory]) -> list[str]:
    """A row for each stage; what ended before a stage has no figures there."""
    states = [run.state() for run in runs]
    times = [seconds(home) for home in homes]
    codes = ", ".join(str(state.code) for state in states)
    mean_wall, mean_cpu = (sum(column) / len(times) / 60 for column in zip(*times, strict=True))
    lines = []
    for place, stage in enumerate(states[0].stages):
        first = place == 0
        reached = [state.stages[place].gates for state in states if state.stages[place].gates]
        names = list(reached[0]) if reached else []
        # A home that was made by another version of the recipe may lack a gate.
        found = [[gates[gate] for gates in reached if gate in gates] for gate in names]
        cells = [
            f"`{name}`" + (f" (seeds: {len(runs)})" if first else "") + f", {stage.method}",
            "<br>".join(target(gates[0]) for gates in found),
            "<br>".join(measured(gates) for gates in found),
            codes if first else "",
            f"{mean_cpu:.1f} min CPU, {mean_wall:.1f} wall" if first else "",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    known = library()
    parser = argparse.ArgumentParser(prog="python -m tests.bench.recipes", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", metavar="NAME", help="library recipes (default: all)")
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 on")
    parser.add_argument("--home", type=Path, required=True, help="folder for the runs")
    parser.add_argument("--backend", choices=("pytorch", "mlx"))
    parser.add_argument("--table", action="store_true", help="only table what is there")
    chosen = parser.parse_args()
    strangers = [name for name in chosen.names if name not in known]
    if strangers:
        parser.error(f"no recipe {', '.join(strangers)}; there are {', '.join(known)}")
    names = chosen.names or list(known)
    extra = [f"backend={chosen.backend}"] if chosen.backend else []
    for seed in range(chosen.seeds):  # every recipe with one seed before any with the next
        for name in [] if chosen.table else names:
            try:
                run_to_end(home_of(chosen.home, name, seed, chosen.backend), name, [f"seed={seed}", *extra])
            except SystemExit as failure:  # the others are worth having all the same
                print(failure, file=sys.stderr, flush=True)
    print("| method | target | measured: mean (least to greatest over seeds) | exit codes | time, mean |")
    print("|---|---|---|---|---|")
    for name in names:
        homes = [home_of(chosen.home, name, seed, chosen.backend) for seed in range(chosen.seeds)]
        ended = [(home, run) for home in homes if (run := finished(home)) is not None]
        if ended:
            print("\n".join(rows_of(name, [home for home, _ in ended], [run for _, run in ended])))


if __name__ == "__main__":
    main()
