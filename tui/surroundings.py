"""What the machine says of the device that a run works on: cheap enough to be asked every ten seconds."""

from __future__ import annotations

from engine.hardware.machine import Gpu
from tui.view.conditions import Surroundings

WORTH_SAYING = 2**29
"""Bytes of another program from which on it is named."""


def look_around() -> Surroundings:
    """The device that training would pick; without a GPU of its own memory, the system's memory."""
    from engine.hardware.host import probe_ram
    from engine.hardware.probe import probe_gpus

    try:
        ram = probe_ram()
        gpus, _ = probe_gpus(ram.total)
    except Exception:  # noqa: BLE001 - whatever a driver or a container does, it must not end the watching
        return Surroundings()
    card = next((gpu for gpu in gpus if gpu.visible), None)
    if card is None:
        return Surroundings("this machine", ram.total, ram.available)
    own = card.total is not None and card.free is not None and not card.unified
    return Surroundings(
        device=card.name,
        total=card.total if own else ram.total,
        free=card.free if own else ram.available,
        holder=_holder(card),
        celsius=card.celsius,
        slowed_by=card.slowed_by,
    )


def _holder(card: Gpu) -> str:
    others = [holder for holder in card.holders if not holder.ours and (holder.held or 0) >= WORTH_SAYING]
    return f"{others[0].name} ({(others[0].held or 0) / 2**30:.1f} GiB)" if others else ""
