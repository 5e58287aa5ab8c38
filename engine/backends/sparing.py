"""Starting a process sooner: half of what the training libraries take to import is not needed by most stages."""

from __future__ import annotations

import contextlib
import gc
import json
import sys
from collections.abc import Iterator
from pathlib import Path


def leave_out_bitsandbytes(quantization: str, optimizer: str, model: Path | None) -> bool:
    """Let no library find bitsandbytes in this process where nothing is quantized: it brings torch's compiler along.

    Only for a process that runs one stage: what was looked for once is remembered as missing. A model that was stored
    quantized needs it whatever the recipe says; without a folder to look into, it is kept. Returns whether it is left out.
    """
    if quantization != "none" or "8bit" in optimizer or model is None or "bitsandbytes" in sys.modules:
        return False
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if config.get("quantization_config"):
        return False
    leave_out()
    return True


def leave_out() -> None:
    sys.modules["bitsandbytes"] = None  # type: ignore[assignment]  # Python's word for "not to be had"


@contextlib.contextmanager
def without_collecting(for_good: bool = False) -> Iterator[None]:
    """Imports make thousands of objects that stay, and the collector would look at all of them again and again.

    ``for_good``: never look at what is there now again, half a second for each full collection (a trainer begins with
    one). For a process that ends with what it imports for; what is in a cycle by then stays in memory.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        if for_good:
            gc.freeze()
