"""check: will every stage fit, how long will it take, and what would make it fit."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from engine.data.prepare import steps_unknown
from engine.forecast.hardware import find_hardware, this_machine
from engine.forecast.plan import anywhere, make_fit, missing_data, plan
from engine.report import duration
from engine.runs.exitcodes import NO_FIT
from recipes.load import load_recipe
from tui.words import unicode_terminal, warning_sign

BAR = 48
SHADES = {
    "weights": ("█", "W"), "reference": ("▓", "R"), "adapter": ("▚", "A"), "gradients": ("▒", "G"),
    "optimizer": ("▞", "O"), "activations": ("░", "a"), "logits": ("▤", "L"), "kv_cache": ("▦", "K"),
    "workspace": ("·", "w"), "unused": ("·", "-"), "context": ("▪", "c"),
}  # fmt: skip
"""Part -> its sign in the bar, and the one without Unicode."""
BASES = {
    "rates": "from the maker's peak rates", "other models": "from what other models took here",
    "similar runs": "from similar runs here", "same stage": "measured here",
}  # fmt: skip
"""What a time is from, in words."""


def check(options: argparse.Namespace) -> int:
    loaded = load_recipe(options.recipe, options.overrides)
    hardware = find_hardware(options.hardware) if options.hardware else this_machine()
    trace = not options.quick
    changed: list[str] = []
    if options.make_fit:
        fitted, changed = make_fit(loaded, hardware, trace=trace)
        if fitted is None:
            _print(options, {"fits": False, "reason": changed[0]}, changed[0])
            return NO_FIT
        loaded = fitted
        if options.output:
            Path(options.output).write_text(anywhere(loaded), encoding="utf-8")
    found = plan(loaded, hardware, trace=trace, local=not options.hardware)
    found["data"] = [str(problem) for problem in missing_data(loaded)]
    found["data"] += [f"stage {index + 1} data: {warning}" for index, warning in steps_unknown(loaded)]
    if options.make_fit:
        found["changed"] = changed
        found["recipe"] = anywhere(loaded) if options.output else loaded.text
    if options.json:
        print(json.dumps(found))
    elif options.make_fit and not options.output:
        print("\n".join(f"# changed {one}" for one in changed) if changed else "# it fits as it is")
        print(found["recipe"], end="")
    else:
        _tell(found, changed, options)
    return 0 if found["fits"] else NO_FIT


def _print(options: argparse.Namespace, data: dict[str, Any], words: str) -> None:
    print(json.dumps(data) if options.json else words, file=sys.stdout)


def _tell(found: dict[str, Any], changed: list[str], options: argparse.Namespace) -> None:
    machine = found["hardware"]
    print(f"{found['name']}: {found['model']['name']} ({_count(found['model']['parameters'])} parameters)")
    print(f"on {machine['name']}, {gib(machine['available_mib'])} available")
    if found["quantization"]["why"]:
        print(f"quantization {found['quantization']['why']}")
    for one in changed:
        print(f"  changed {one}")
    if options.output:
        print(f"  written to {os.path.abspath(options.output)}")
    for number, stage in enumerate(found["stages"], 1):
        print()
        for line in stage_lines(number, stage):
            print(line)
    for problem in found["data"]:
        print(f"\n{warning_sign()} {problem}")


def stage_lines(number: int, stage: dict[str, Any]) -> list[str]:
    """A stage in words: verdict, figures, bar, remedies."""
    memory, time, stored, available = stage["memory"], stage["time_s"], stage["storage"], stage["available_mib"]
    lines = [
        f"{number}. {stage['method']}: {stage['verdict'].upper()}  {gib(memory['process_mib'])} "
        f"({gib(memory['low_mib'])} to {gib(memory['high_mib'])}) of {gib(available)}, by {memory['tier']}",
        "   " + bar(memory["parts"], available),
        "   " + legend(memory["parts"]),
        f"   most of it at: {memory['peak']}",
        f"   about {duration(time['value'])} ({duration(time['low'])} to {duration(time['high'])}), "
        + BASES[time["basis"]],
        f"   disk: download {gib(stored['download_mib'])}, checkpoints {gib(stored['checkpoints_mib'])}, what it hands on "
        f"{gib(stored['output_mib'])}, exported merged {gib(stored['export_mib'])}; merging needs "
        f"{gib(stored['merge_ram_mib'])} of RAM, comparing the export with the run {gib(stored['export_ram_mib'])}",
    ]  # fmt: skip
    lines += [f"   {warning_sign()} {note}" for note in stage["notes"]]
    if stage["remedies"]:
        lines.append("   what would help:")
    for one in stage["remedies"]:
        lines.append(f"     {gib(one['process_mib']):>9}  {one['verdict']:<12}  {one['what']} (costs {one['costs']})")
    case = stage.get("source_case")
    if case:
        lines.append(
            f"   for comparison, a 1B model in 4 bit: {case['source_gb']:g} GB says the method comparison, "
            f"{case['ours_gb']:g} GB this forecast ({case['why']})"
        )
    return lines


def gib(mib: float) -> str:
    return f"{mib / 1024:.1f} GiB" if mib >= 102.4 else f"{mib:.0f} MiB"


def bar(parts: dict[str, float], available: float) -> str:
    """What takes the memory, to the scale of what is available; ``|`` marks its end."""
    which = 0 if unicode_terminal() else 1
    scale = BAR / max(available, sum(parts.values()))
    drawn, so_far = "", 0.0
    for name, value in parts.items():
        so_far += value
        drawn += SHADES[name][which] * (round(so_far * scale) - len(drawn))
    end = min(BAR, round(available * scale))
    drawn = drawn.ljust(max(end, len(drawn)))
    return drawn[:end] + "|" + drawn[end:]


def legend(parts: dict[str, float]) -> str:
    which = 0 if unicode_terminal() else 1
    shown = [(name, value) for name, value in parts.items() if value >= 1]
    return "  ".join(f"{SHADES[name][which]} {name.replace('_', ' ')} {gib(value)}" for name, value in shown)


def _count(parameters: int) -> str:
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e8 else f"{parameters / 1e6:.1f} M"
