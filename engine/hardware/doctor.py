"""What is missing or mismatched on a machine, with the command that mends it. Pure: a Machine in, findings out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from engine.hardware.machine import Gpu, Machine, Package

GIB = 2**30
LEAST_DISK = 5 * GIB
"""Below this not even the checkpoints of a small run have room."""
LITTLE_DISK = 30 * GIB
"""An 8B model is 16 GB to download, and its merged export as much again."""
LITTLE_RAM = 4 * GIB
HELD_BY_OTHERS = GIB
DESKTOP = {
    "xorg",
    "xwayland",
    "gnome-shell",
    "kwin_wayland",
    "kwin_x11",
    "plasmashell",
    "sway",
    "hyprland",
    "cosmic-comp",
}
"""Programs that draw the screen: ending one ends the session."""
HOT = 87
"""Degrees Celsius; consumer cards slow themselves down from 83 to 93."""
LOW_BATTERY = 20
OLDEST_MACOS = (14, 0)
"""MLX's wheels are built for macOS 14 and newer."""

DRIVER_COMMANDS = {
    "ubuntu": "sudo ubuntu-drivers install && sudo reboot",
    "debian": "sudo apt install nvidia-driver && sudo reboot",
    "fedora": "sudo dnf install akmod-nvidia && sudo reboot",
    "arch": "sudo pacman -S nvidia && sudo reboot",
    "opensuse-tumbleweed": "sudo zypper install-new-recommends --repo NVIDIA && sudo reboot",
}
NEWEST_DRIVER = "install the newest driver from the vendor's page and reboot"
WSL_DRIVER = "in Windows, install the newest NVIDIA driver, then run `wsl --shutdown`; never install one inside WSL"
DRIVER_OF_CUDA = {11: "450", 12: "525", 13: "580"}
"""CUDA's major release -> oldest driver branch that runs it (CUDA release notes, minor-version compatibility)."""

GATED = {
    "meta-llama/": "Llama", "google/gemma": "Gemma", "mistralai/mistral": "Mistral", "mistralai/mixtral": "Mistral",
    "mistralai/codestral": "Mistral", "cohereforai/": "Cohere", "coherelabs/": "Cohere", "bigcode/starcoder": "StarCoder",
}  # fmt: skip
"""Beginnings of hub ids (lower case) whose licence must be accepted first; only used when the hub cannot be asked."""

Level = Literal["mend", "advice", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing found. ``mend`` must be done before training works; ``advice`` should; ``note`` is good to know."""

    level: Level
    code: str
    says: str
    mend: str | None = None
    """The command, or what to do where no command does it."""


def examine(machine: Machine, pip: str = "pip") -> list[Finding]:
    """Everything worth saying, what must be mended first. ``pip``: how packages are installed in this environment."""
    found = [
        *_requirements(machine, pip),
        *_drivers(machine),
        *_training_library(machine, pip),
        *_quantization(machine, pip),
        *_mac(machine, pip),
        *_disks(machine),
        *_memory(machine),
        *_conditions(machine),
    ]
    order = {"mend": 0, "advice": 1, "note": 2}
    return sorted(found, key=lambda finding: order[finding.level])


# ---- software ----------------------------------------------------------------------------------------------------------


def _requirements(machine: Machine, pip: str) -> Iterator[Finding]:
    facts = machine.software.get("requirements", Package()).facts
    for item in facts.get("unmet", []):
        wanted = f"{item['name']}{item['wanted']}"
        if item["found"] is None:
            says = f"{item['name']} is not installed"
        else:
            says = f"{item['name']} {item['found']} is installed, {item['wanted'] or 'another'} is needed"
        yield Finding("mend", "requirement", says, f"{pip} install '{wanted}'")


def _training_library(machine: Machine, pip: str) -> Iterator[Finding]:
    """torch against the GPU and its driver; on a Mac it is MLX that trains (``_mac``)."""
    torch = machine.software.get("torch")
    if torch is None or machine.apple:
        return
    if torch.version is None:
        if not _unmet(machine, "torch"):
            yield Finding("mend", "no-torch", "torch is not installed: nothing can be trained", f"{pip} install torch")
        return
    if torch.error:
        yield Finding(
            "mend", "broken-torch", f"torch {torch.version} cannot be imported: {torch.error}",
            f"{pip} install --force-reinstall torch{_pinned(torch)}",
        )  # fmt: skip
        return
    nvidia = [gpu for gpu in machine.gpus if gpu.vendor == "nvidia"]
    if nvidia:
        yield from _torch_on_nvidia(machine, torch, nvidia, pip)
    elif any(gpu.vendor == "amd" for gpu in machine.gpus) and not torch.facts.get("rocm_build"):
        yield Finding(
            "mend", "torch-without-rocm", f"an AMD GPU is there, but torch {torch.version} is not built for ROCm",
            "install torch's ROCm build with the command that pytorch.org/get-started shows for it",
        )  # fmt: skip
    elif not machine.gpus and "nvidia" not in machine.drivers:
        yield Finding("note", "cpu-only", "no GPU: the CPU trains, which suits the lab and models of a few 100 M")


def _torch_on_nvidia(machine: Machine, torch: Package, gpus: list[Gpu], pip: str) -> Iterator[Finding]:
    names = ", ".join(gpu.name for gpu in gpus)
    reinstall = f"{pip} install --force-reinstall torch{_pinned(torch)}"
    build = torch.facts.get("cuda_build")
    if not build:
        yield Finding(
            "mend", "cpu-torch", f"{names} is there, but torch {torch.version} is built for the CPU", reinstall
        )
        return
    if not any(gpu.visible for gpu in gpus):
        says = "CUDA_VISIBLE_DEVICES hides every GPU, so the CPU would train"
        yield Finding("mend", "hidden-gpu", says, "unset CUDA_VISIBLE_DEVICES")
        return
    driver = machine.drivers.get("nvidia")
    major = int(str(build).split(".")[0])
    if driver and driver.cuda and driver.cuda[0] < major:
        needed = DRIVER_OF_CUDA.get(major)
        says = (
            f"the driver {driver.version} runs CUDA {driver.cuda[0]}.{driver.cuda[1]}, but torch {torch.version} is built "
            f"for CUDA {build}" + (f", which needs driver {needed} or newer" if needed else "")
        )
        yield Finding("mend", "old-driver", says, _driver_command(machine))
        return
    if not torch.facts.get("cuda_available"):
        words = "; ".join(torch.facts.get("warnings") or []) or "torch gives no reason"
        yield Finding("mend", "no-cuda", f"torch {torch.version} cannot use {names}: {words}", reinstall)
        return
    for gpu in gpus:
        if gpu.visible and not runs_on(gpu, torch.facts.get("targets") or []):
            yield Finding(
                "mend", "old-gpu",
                f"torch {torch.version} has no code for {gpu.name} (compute capability {gpu.capability}; it has "
                f"{', '.join(torch.facts['targets'])})",
                "install the torch build for an older CUDA that pytorch.org/get-started/previous-versions shows, or hide "
                f"this GPU: export CUDA_VISIBLE_DEVICES={_others(gpus, gpu)}",
            )  # fmt: skip


def runs_on(gpu: Gpu, targets: Iterable[str]) -> bool:
    """Whether a build for ``targets`` (``sm_80``, ``compute_120``) has code for the GPU.

    Binary code runs on its own major capability from its minor up; ``compute_`` (PTX) on everything from it up; a
    target ending in a letter (``sm_90a``) on exactly that one. Nothing known: it is believed to run.
    """
    targets = list(targets)
    if not gpu.capability or not targets:
        return True
    major, minor = map(int, gpu.capability.split("."))
    for target in targets:
        kind, _, number = target.partition("_")
        exact = not number.isdigit()
        digits = number.rstrip("abcdefghijklmnopqrstuvwxyz")
        if not digits.isdigit():
            continue
        has = (int(digits[:-1]), int(digits[-1]))
        if exact and has == (major, minor) or not exact and kind == "compute" and has <= (major, minor):
            return True
        if not exact and kind == "sm" and has[0] == major and has[1] <= minor:
            return True
    return False


def _others(gpus: list[Gpu], hidden: Gpu) -> str:
    return ",".join(str(gpu.index) for gpu in gpus if gpu is not hidden) or "''"


def _quantization(machine: Machine, pip: str) -> Iterator[Finding]:
    nvidia = [gpu for gpu in machine.gpus if gpu.vendor == "nvidia" and gpu.visible]
    library, torch = machine.software.get("bitsandbytes"), machine.software.get("torch")
    if not nvidia or library is None or torch is None or not torch.facts.get("cuda_build"):
        return
    if library.version is None:
        if not _unmet(machine, "bitsandbytes"):
            says = "bitsandbytes is not installed: no 4-bit, no 8-bit, no paged optimizer"
            yield Finding("mend", "no-bitsandbytes", says, f"{pip} install bitsandbytes")
        return
    if library.error or not library.facts.get("cuda_library"):
        why = library.error or f"it has no library for CUDA {torch.facts['cuda_build']}"
        yield Finding(
            "mend", "bitsandbytes-without-cuda",
            f"bitsandbytes {library.version} works without the GPU only ({why}): 4-bit and 8-bit would fail",
            f"{pip} install --upgrade --force-reinstall --no-deps bitsandbytes",
        )  # fmt: skip


def _mac(machine: Machine, pip: str) -> Iterator[Finding]:
    if machine.system == "macOS" and machine.apple is None:
        yield Finding("note", "intel-mac", "an Intel Mac: neither MLX nor a GPU; the CPU trains")
        return
    if machine.apple is None:
        return
    if machine.apple.translated:
        says = "this Python runs under Rosetta (x86_64): the GPU cannot be used"
        yield Finding("mend", "rosetta", says, "install an arm64 Python: arch -arm64 brew install python@3.12")
        return
    release = tuple(int(part) for part in machine.release.split(".")[:2] if part.isdigit())
    if release and release < OLDEST_MACOS:
        says = f"macOS {machine.release}: MLX needs {OLDEST_MACOS[0]} or newer"
        yield Finding("mend", "old-macos", says, "softwareupdate --install --all --restart")
        return
    mlx = machine.software.get("mlx")
    if mlx is None:
        return
    if not mlx.works and not _unmet(machine, "mlx-lm"):
        says = f"MLX cannot be imported: {mlx.error}" if mlx.error else "MLX is not installed"
        yield Finding("mend", "no-mlx", says, f"{pip} install --upgrade mlx mlx-lm")
    elif mlx.works and not mlx.facts.get("metal"):
        says = "MLX is installed without Metal: the CPU would train"
        yield Finding("mend", "mlx-without-metal", says, f"{pip} install --force-reinstall mlx mlx-metal")
    if machine.apple.wired_limit and machine.apple.wired_limit > machine.apple.memory * 0.9:
        says = "the GPU may wire over 90 % of the memory: macOS itself may run out and the machine restart"
        yield Finding("advice", "wired-limit", says, "sudo sysctl iogpu.wired_limit_mb=0")


def _unmet(machine: Machine, name: str) -> bool:
    """Whether the missing requirement is already told of."""
    facts = machine.software.get("requirements", Package()).facts
    return any(item["name"] == name for item in facts.get("unmet", []))


def _pinned(torch: Package) -> str:
    """``==2.13.0``: the same release, without the local part that names the build."""
    release = (torch.version or "").partition("+")[0]
    return f"=={release}" if release[:1].isdigit() else ""


# ---- the machine -------------------------------------------------------------------------------------------------------


def _drivers(machine: Machine) -> Iterator[Finding]:
    driver = machine.drivers.get("nvidia")
    if driver is None or driver.error is None:
        return
    seen = any(gpu.vendor == "nvidia" for gpu in machine.gpus)
    reboot = "mismatch" in driver.error or seen
    says = f"an NVIDIA GPU does not answer: {driver.error}"
    yield Finding("mend", "driver", says, "sudo reboot" if reboot else _driver_command(machine))


def _driver_command(machine: Machine) -> str:
    if machine.wsl:
        return WSL_DRIVER
    return DRIVER_COMMANDS.get(machine.distribution or "", NEWEST_DRIVER)


def _disks(machine: Machine) -> Iterator[Finding]:
    what = {"runs": "runs and checkpoints", "models": "downloaded models"}
    move = {"runs": "export FINETUNE_TUI_HOME=/another/disk/finetune-tui", "models": "export HF_HOME=/another/disk/hub"}
    for name, disk in machine.disks.items():
        if not disk.writable:
            says = f"{disk.path}, where {what[name]} go, cannot be written to"
            yield Finding("mend", f"disk-{name}", says, f"sudo chown -R \"$USER\" '{disk.path}', or {move[name]}")
        elif disk.free < LITTLE_DISK:
            level: Level = "mend" if disk.free < LEAST_DISK else "advice"
            says = f"{disk.free / GIB:.1f} GiB free at {disk.path}, where {what[name]} go"
            mend = "finetune-tui rm RUN" if name == "runs" else "hf cache prune"
            yield Finding(level, f"disk-{name}", says, f"{mend}, or {move[name]}")


def _memory(machine: Machine) -> Iterator[Finding]:
    if machine.ram.available < LITTLE_RAM:
        by = f" ({machine.ram.limited_by})" if machine.ram.limited_by else ""
        says = f"{machine.ram.available / GIB:.1f} of {machine.ram.total / GIB:.1f} GiB of RAM available{by}"
        yield Finding("advice", "ram", says, "close what is not needed")
    for gpu in machine.gpus:
        others = [holder for holder in gpu.holders if not holder.ours and (holder.held or 0) > 0]
        held = sum(holder.held or 0 for holder in others)
        if held >= HELD_BY_OTHERS:
            who = ", ".join(f"{holder.name} ({holder.pid}) {(holder.held or 0) / GIB:.1f} GiB" for holder in others[:4])
            says = f"other programs hold {held / GIB:.1f} GiB of {gpu.name}: {who}"
            closable = [holder for holder in others if holder.name.lower() not in DESKTOP]
            mend = f"close it, or: kill {closable[0].pid}" if closable else "log out of the desktop while training runs"
            yield Finding("advice", "vram-held", says, mend)
    if machine.gpus and all(gpu.unified for gpu in machine.gpus):
        says = f"{machine.gpus[0].name} shares the system's memory: what programs use is missing in training"
        yield Finding("note", "unified", says)


def _conditions(machine: Machine) -> Iterator[Finding]:
    power = machine.power
    if power.plugged is False:
        percent = "" if power.battery_percent is None else f" at {power.battery_percent:.0f} %"
        level: Level = "mend" if (power.battery_percent or 100) < LOW_BATTERY else "advice"
        yield Finding(level, "battery", f"running on battery{percent}: slower, and not for long", "plug it in")
    for gpu in machine.gpus:
        if gpu.slowed_by or (gpu.celsius or 0) >= HOT:
            why = f"is slowed down by {gpu.slowed_by}" if gpu.slowed_by else "is hot"
            degrees = "" if gpu.celsius is None else f" at {gpu.celsius:.0f} °C"
            yield Finding("advice", "heat", f"{gpu.name} {why}{degrees}", "free its air, or lower its power limit: "
                          f"sudo nvidia-smi -i {gpu.index} -pl {round((gpu.watt_limit or 300) * 0.8)}"
                          if gpu.vendor == "nvidia" else "free its air")  # fmt: skip


# ---- a model -----------------------------------------------------------------------------------------------------------


def gated_offline(model: str, token: bool) -> Finding | None:
    """What is known of a gated model without asking the hub."""
    family = next((name for start, name in GATED.items() if model.lower().startswith(start)), None)
    if family is None or token:
        return None
    says = f"`{model}` is of the {family} family, whose licence must be accepted, and there is no hub token here"
    return Finding("mend", "gated-model", says, f"accept the licence on the page of {model}, then: hf auth login")
