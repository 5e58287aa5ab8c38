"""The machine as a card: what trains, what memory is free, where the disk and the power stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.hardware.machine import Machine

GIB = 2**30
LITTLE_DISK = 5 * GIB


@dataclass(frozen=True)
class Row:
    """``free`` is the free share of what the row is about, drawn as a bar; None where there is none."""

    name: str
    words: str
    free: float | None = None


def card(machine: Machine) -> list[Row]:
    memory = machine.training_memory()
    told = "no GPU" if memory.device == "cpu" else "shared with the system" if memory.unified else ""  # fmt: skip
    rows = [
        Row(
            "trains on",
            f"{_size(memory.available, memory.total)} on {memory.name}" + (f", {told}" if told else ""),
            _share(memory),
        )
    ]
    for gpu in [one for one in machine.gpus if one.visible][1:]:
        if gpu.total and gpu.free is not None:
            rows.append(Row("", f"{_size(gpu.free, gpu.total)} on {gpu.name}", gpu.free / gpu.total))
    if memory.device != "cpu" and not memory.unified:
        ram = machine.ram
        rows.append(Row("RAM", _size(ram.available, ram.total), ram.available / max(1, ram.total)))
    disk = machine.disks.get("runs")
    if disk and disk.total:
        short = "  too little for most runs" if disk.free < LITTLE_DISK else ""
        rows.append(
            Row("disk", f"{disk.free / GIB:.0f} of {disk.total / GIB:.0f} GiB free{short}", disk.free / disk.total)
        )
    if machine.power.plugged is False:
        rows.append(Row("power", "on battery: plug it in before a long run"))
    rows += [Row("driver", f"{name}: {driver.error}") for name, driver in machine.drivers.items() if driver.error]
    return rows


def _share(memory: object) -> float:
    return min(1.0, memory.available / max(1, memory.total))  # type: ignore[attr-defined]


def _size(free: int, total: int) -> str:
    return f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
