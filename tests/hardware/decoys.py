"""Training libraries that import at once, for commands whose test is not about them: each real survey takes seconds."""

from __future__ import annotations

import os
from pathlib import Path

TORCH = """
from types import SimpleNamespace as _Some
version = _Some(cuda=None, hip=None)
cuda = _Some(is_available=lambda: False, get_arch_list=lambda: [])
backends = _Some(mps=_Some(is_available=lambda: False))
"""


def light(folder: Path) -> dict[str, str]:
    """An environment in which a child finds a torch and a bitsandbytes of a few lines, in ``folder``, before the real."""
    (folder / "bitsandbytes").mkdir(parents=True)
    (folder / "bitsandbytes" / "__init__.py").touch()
    (folder / "bitsandbytes" / "cextension.py").write_text("lib = None\n")
    (folder / "torch.py").write_text(TORCH)
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))}
