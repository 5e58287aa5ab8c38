"""AMD GPUs, read from what the amdgpu driver writes under ``/sys``: no library needed.

The kernel's documentation ("drm/amdgpu: misc amdgpu driver information") names the files; all sizes are bytes.
"""

from __future__ import annotations

from pathlib import Path

from engine.hardware.machine import Driver, Gpu

VENDOR = "0x1002"
SMALL_CARVEOUT = 4 * 2**30
"""An integrated chip reserves little memory for itself and takes the rest from the RAM (GTT) as it goes."""


def probe_amd(sys_folder: Path, ram_total: int) -> tuple[list[Gpu], Driver | None]:
    """Every GPU of the amdgpu driver. ``(…, None)`` when there is none."""
    gpus: list[Gpu] = []
    targets = _targets(sys_folder)
    for card in sorted(sys_folder.glob("class/drm/card[0-9]*"), key=lambda path: path.name):
        device = card / "device"
        if "-" in card.name or _text(device / "vendor") != VENDOR:
            continue
        total, used = _number(device / "mem_info_vram_total"), _number(device / "mem_info_vram_used")
        if total is None:
            continue
        shared = total <= SMALL_CARVEOUT and (_number(device / "mem_info_gtt_total") or 0) > total
        power, limit = _sensor(device, "power1_average", "power1_input"), _sensor(device, "power1_cap")
        heat = _sensor(device, "temp1_input")
        gpus.append(
            Gpu(
                vendor="amd",
                index=len(gpus),
                name=_text(device / "product_name") or f"AMD GPU {_text(device / 'device') or ''}".strip(),
                total=None if shared else total,
                free=None if shared or used is None else total - used,
                used=None if shared else used,
                unified=shared,
                capability=targets[len(gpus)] if len(gpus) < len(targets) else None,
                watts=None if power is None else power / 1e6,
                watt_limit=None if limit is None else limit / 1e6,
                celsius=None if heat is None else heat / 1e3,
            )
        )
    if not gpus:
        return [], None
    return gpus, Driver(_text(sys_folder / "module/amdgpu/version") or "amdgpu of the kernel")


def _targets(sys_folder: Path) -> list[str]:
    """``gfx1100`` for each GPU, in the driver's order: 110000 is major 11, minor 00, stepping 00 (hexadecimal)."""
    found = []
    nodes = sys_folder.glob("class/kfd/kfd/topology/nodes/*/properties")
    for properties in sorted(nodes, key=lambda path: int(path.parent.name)):
        for line in (_text(properties) or "").splitlines():
            name, _, value = line.partition(" ")
            if name == "gfx_target_version" and value.strip().isdigit() and int(value):
                number = int(value)
                found.append(f"gfx{number // 10000}{number // 100 % 100:x}{number % 100:x}")
    return found


def _sensor(device: Path, *names: str) -> int | None:
    for name in names:
        for path in sorted(device.glob(f"hwmon/hwmon*/{name}")):
            value = _number(path)
            if value is not None:
                return value
    return None


def _number(path: Path) -> int | None:
    text = _text(path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
