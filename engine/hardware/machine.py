"""What a machine is, as plain data: processors, memory, accelerators, disk, power, software. Sizes are in bytes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

UNIFIED_SHARE = 0.9
"""A GPU that reports at least this share of the RAM as its own shares it (GB10, Jetson, integrated chips)."""


@dataclass(frozen=True)
class Holder:
    """A program that holds memory of a GPU. ``held`` is None where the driver does not say (Windows, WSL)."""

    pid: int
    name: str
    held: int | None
    ours: bool = False
    """True for a stage process of this product."""


@dataclass(frozen=True)
class Gpu:
    """One accelerator. ``total`` and ``free`` are None where it has no memory of its own (``unified``)."""

    vendor: Literal["nvidia", "amd", "apple"]
    index: int
    name: str
    total: int | None
    free: int | None
    used: int | None
    unified: bool = False
    capability: str | None = None
    """Compute capability such as ``8.6``, or AMD's target such as ``gfx1100``."""
    watts: float | None = None
    watt_limit: float | None = None
    celsius: float | None = None
    slowed_by: str | None = None
    """Why its clocks are held down right now, such as ``heat``."""
    holders: tuple[Holder, ...] = ()
    visible: bool = True
    """False when CUDA_VISIBLE_DEVICES hides it from training."""


@dataclass(frozen=True)
class Driver:
    """The vendor's driver. ``cuda`` is the newest CUDA release that it can run, as (major, minor)."""

    version: str | None = None
    cuda: tuple[int, int] | None = None
    error: str | None = None
    """Why the driver cannot be asked although the machine has such a GPU."""


@dataclass(frozen=True)
class Apple:
    """An Apple Silicon machine's unified memory as Metal may use it."""

    chip: str
    memory: int
    working_set: int
    """Memory that Metal recommends to stay under."""
    working_set_from: Literal["metal", "wired limit", "estimate"]
    wired_limit: int | None
    """``iogpu.wired_limit_mb`` as set by the user; None for the system's default."""
    gpu_cores: int | None = None
    translated: bool = False
    """This Python runs under Rosetta and cannot use the GPU."""


@dataclass(frozen=True)
class Cpu:
    name: str
    cores: int
    """Physical cores that this process may use."""
    threads: int


@dataclass(frozen=True)
class Ram:
    total: int
    available: int
    """What programs can still get without swapping; a container's limit is taken into account."""
    limited_by: str | None = None


@dataclass(frozen=True)
class Disk:
    path: str
    total: int
    free: int
    writable: bool


@dataclass(frozen=True)
class Power:
    """``battery_percent`` is None on a machine without a battery."""

    plugged: bool | None
    battery_percent: float | None = None


@dataclass(frozen=True)
class Package:
    """One library as a helper process found it. ``error`` says why it cannot be imported; both None: not installed."""

    version: str | None = None
    error: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def works(self) -> bool:
        return self.version is not None and self.error is None


@dataclass(frozen=True)
class Machine:
    """Everything that the probe found. ``software`` is empty when it was not asked for."""

    system: str
    release: str
    architecture: str
    distribution: str | None
    wsl: bool
    python: str
    cpu: Cpu
    ram: Ram
    disks: dict[str, Disk]
    """``runs`` for the runs' home, ``models`` for the hub cache."""
    power: Power
    gpus: tuple[Gpu, ...] = ()
    drivers: dict[str, Driver] = field(default_factory=dict)
    apple: Apple | None = None
    software: dict[str, Package] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The same as JSON; ``training_memory`` on top, which every "will it fit" is held against."""
        return asdict(self) | {"training_memory": asdict(self.training_memory())}

    def training_memory(self) -> TrainingMemory:
        """What a training process could get right now on the device that it would pick."""
        if self.apple:
            available = min(self.apple.working_set, self.ram.available)
            return TrainingMemory("metal", self.apple.chip, available, self.apple.memory, True)
        cards = [gpu for gpu in self.gpus if gpu.visible]
        if not cards:
            return TrainingMemory("cpu", self.cpu.name, self.ram.available, self.ram.total, True)
        gpu = cards[0]
        device = "cuda:0" if gpu.vendor == "nvidia" else "rocm:0"
        if gpu.unified or gpu.free is None or gpu.total is None:
            return TrainingMemory(device, gpu.name, self.ram.available, self.ram.total, True)
        return TrainingMemory(device, gpu.name, gpu.free, gpu.total, False)


@dataclass(frozen=True)
class TrainingMemory:
    device: str
    name: str
    available: int
    total: int
    unified: bool
    """True: the memory is the system's, and what other programs take is taken from training."""
