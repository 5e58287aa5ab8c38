"""The machine that a forecast is for: described, not probed. A name of the catalogue, a file, or a plain dict."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from recipes.errors import InputError, Problem, nearest_word, quoted
from recipes.resources import assets_folder

KINDS = ("cuda", "apple", "cpu")
UNMEASURED_CONTEXT = 400
"""MiB that a CUDA process holds beside the allocator where nobody measured it: kernels and driver. A T4 holds 141."""
FREE_SHARE = {"cuda": 0.975, "apple": 0.75, "cpu": 0.8}
"""Of the total, what is there to use on a machine at rest: driver and desktop take some; on a Mac it is the
recommended working set (48 GB -> 37.4 GiB, 64 -> 48, 128 -> 96)."""
CPU_PROCESS = 480
"""MiB that a stage's process holds on a CPU once torch, transformers, PEFT and TRL are imported: measured, n 1."""
CORE_TFLOPS = 0.1
"""Peak of a CPU core in fp32: two 8-wide fused multiply-adds at 3 GHz."""


@dataclass(frozen=True)
class Hardware:
    """One device of the machine. ``tflops`` and ``bandwidth`` (GB/s) are peaks; None where nothing is known."""

    name: str
    kind: str
    total_mib: float
    available_mib: float
    compute_capability: int = 80
    tflops: float | None = None
    bandwidth: float | None = None
    context_mib: float = 0.0

    @property
    def backend(self) -> str:
        return "mlx" if self.kind == "apple" else "pytorch"

    @property
    def has_bf16(self) -> bool:
        return self.kind != "cuda" or self.compute_capability >= 80

    def shared_by(self, processes: int) -> int:
        """How many of a training stage's processes compute on this device: one where each has a GPU of its own."""
        return 1 if self.kind == "cuda" else processes

    def when_free(self) -> Hardware:
        """The same device once nobody else is on it."""
        return replace(self, available_mib=max(self.available_mib, self.total_mib * FREE_SHARE[self.kind]))


@cache
def machines() -> dict[str, dict[str, Any]]:
    """Name -> its entry of assets/catalogue/hardware.json."""
    path = assets_folder() / "catalogue" / "hardware.json"
    entries = json.loads(path.read_text(encoding="utf-8"))["machines"]
    return {name: entry for entry in entries for name in entry["ids"]}


def find_hardware(word: str) -> Hardware:
    """A machine by its name or from a YAML or JSON file. Raises InputError."""
    plain = word.lower().replace(" ", "-").replace("_", "-")
    for prefix in ("nvidia-geforce-", "nvidia-", "geforce-", "tesla-", "apple-"):
        plain = plain.removeprefix(prefix)
    if plain in machines():
        return from_dict(machines()[plain], word)
    path = Path(word).expanduser()
    if path.is_file():
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            accepted = "YAML or JSON with `name`, `kind` and `memory_mib`"
            raise InputError([Problem(str(path), None, None, " ".join(str(error).split()), accepted)]) from None
        return from_dict(content, str(path))
    accepted = f"a file, or one of {quoted(machines())}"
    raise InputError([Problem("--hardware", None, None, f"`{word}`", accepted, nearest_word(plain, machines()))])


def from_dict(given: Any, where: str = "hardware") -> Hardware:
    """Hardware from plain data: ``name``, ``kind``, ``memory_mib`` (or ``total_mib``), and what is known beyond it.

    ``available_mib`` is what is free; left out, the usual share of the total. Raises InputError.
    """
    if isinstance(given, Hardware):
        return given
    if isinstance(given, str):
        return find_hardware(given)
    if not isinstance(given, dict):
        found = f"a {type(given).__name__}"
        raise InputError([Problem(where, None, None, found, "a mapping with `name`, `kind` and `memory_mib`")])
    fields = {
        "ids", "name", "kind", "memory_mib", "total_mib", "available_mib", "compute_capability", "tflops",
        "bandwidth_gb_s", "context_mib",
    }  # fmt: skip
    problems = [
        Problem(
            where, None, str(key), f"an unknown field `{key}`", quoted(sorted(fields)), nearest_word(str(key), fields)
        )
        for key in given
        if key not in fields
    ]
    kind = given.get("kind", "cuda")
    if kind not in KINDS:
        problems.append(Problem(where, None, "kind", f"`{kind}`", quoted(KINDS), nearest_word(str(kind), KINDS)))
    total: Any = given.get("memory_mib", given.get("total_mib"))
    if total is None:
        total = given.get("available_mib")
    numbers = {name: given.get(name) for name in fields - {"ids", "name", "kind", "memory_mib"}} | {"memory_mib": total}
    for name, value in numbers.items():
        needed = name == "memory_mib"
        if (value is None and needed) or (value is not None and not (_number(value) and value > 0)):
            problems.append(Problem(where, None, name, f"`{value}`", "a number above 0"))
    if problems:
        raise InputError(problems)
    context = given.get("context_mib", {"cuda": UNMEASURED_CONTEXT, "cpu": CPU_PROCESS}.get(kind, 0))
    capability = given.get("compute_capability", 80)
    return Hardware(
        name=str(given.get("name", where)),
        kind=kind,
        total_mib=float(total),
        available_mib=float(given.get("available_mib") or total * FREE_SHARE[kind]),
        compute_capability=round(capability * 10) if capability < 20 else int(capability),
        tflops=given.get("tflops"),
        bandwidth=given.get("bandwidth_gb_s"),
        context_mib=float(context),
    )


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def this_machine() -> Hardware:
    """What a training process could get right now on the device that it would pick, as the probe sees it."""
    from engine.hardware.device import physical_cores
    from engine.hardware.probe import probe_machine

    machine = probe_machine(software=False)
    memory = machine.training_memory()
    total, available = memory.total / 2**20, memory.available / 2**20
    if memory.device == "cpu":
        return Hardware(
            "this machine's CPU",
            "cpu",
            total,
            available,
            tflops=CORE_TFLOPS * physical_cores(),
            context_mib=CPU_PROCESS,
        )
    known: dict[str, Any] = next((one for one in machines().values() if one["name"] == memory.name), {})
    tflops, bandwidth = known.get("tflops"), known.get("bandwidth_gb_s")
    if memory.device == "metal":
        return Hardware(memory.name, "apple", total, available, tflops=tflops, bandwidth=bandwidth)
    card = next(gpu for gpu in machine.gpus if gpu.visible)
    major, _, minor = (card.capability or "8.0").partition(".")
    context = float(known.get("context_mib", UNMEASURED_CONTEXT))
    return Hardware(
        memory.name, "cuda", total, available, 10 * int(major) + int(minor or 0), tflops, bandwidth, context
    )
