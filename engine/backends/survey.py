"""Which training libraries can be imported, and what they see: ``python -P -m engine.backends.survey``.

A process of its own, so that nothing heavy reaches the one that asks. One JSON line before each library and one after:
if an import kills the process (a broken CUDA library does), the last line names the culprit.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

IMPORTED = ("torch", "bitsandbytes", "mlx")
"""Libraries that are really imported: what they find on this machine is only known then."""
LOOKED_UP = ("transformers", "peft", "trl", "accelerate", "datasets", "tokenizers", "mlx-lm", "huggingface_hub")
"""Libraries whose version is enough: importing them all takes ten seconds and says nothing about the machine."""


def main() -> int:
    for name in (*LOOKED_UP, *IMPORTED):
        _tell({"begin": name})
        _tell({"name": name, **_survey(name)})
    _tell({"name": "requirements", "facts": {"unmet": unmet_requirements()}})
    return 0


def _survey(name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = {"version": version(name)}
    except PackageNotFoundError:
        return {}
    if name in FACTS:
        try:
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                found["facts"] = FACTS[name]()
            telling = [item for item in said if not issubclass(item.category, DeprecationWarning | FutureWarning)]
            found["facts"]["warnings"] = [" ".join(str(item.message).split()) for item in telling]
        except Exception as error:  # whatever an import does: the answer is that it does not work
            found["error"] = f"{type(error).__name__}: {error}"
    return found


def torch_facts() -> dict[str, Any]:
    torch = importlib.import_module("torch")
    facts: dict[str, Any] = {
        "cuda_build": torch.version.cuda,
        "rocm_build": torch.version.hip,
        "cuda_available": torch.cuda.is_available(),
        "targets": torch.cuda.get_arch_list() if torch.version.cuda or torch.version.hip else [],
        "mps_available": torch.backends.mps.is_available(),
    }
    if facts["cuda_available"]:
        facts["devices"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return facts


def bitsandbytes_facts() -> dict[str, Any]:
    """Whether its compiled library for the accelerator was loaded: without it, importing works and quantizing fails."""
    library = importlib.import_module("bitsandbytes.cextension")
    loaded = getattr(library, "lib", None)
    return {"library": type(loaded).__name__, "cuda_library": bool(getattr(loaded, "compiled_with_cuda", False))}


def mlx_facts() -> dict[str, Any]:
    core = importlib.import_module("mlx.core")
    facts: dict[str, Any] = {"metal": bool(core.metal.is_available())}
    if facts["metal"]:
        info = core.device_info()
        facts["recommended_working_set"] = info.get("max_recommended_working_set_size")
        facts["architecture"] = info.get("architecture")
    return facts


FACTS: dict[str, Callable[[], dict[str, Any]]] = {
    "torch": torch_facts, "bitsandbytes": bitsandbytes_facts, "mlx": mlx_facts,
}  # fmt: skip


def unmet_requirements() -> list[dict[str, str | None]]:
    """Our own declared requirements that the environment does not meet: ``{"name", "wanted", "found"}``."""
    from packaging.requirements import Requirement

    try:
        declared = requires("finetune-tui") or []
    except PackageNotFoundError:  # run from a checkout without being installed
        return []
    unmet: list[dict[str, str | None]] = []
    for text in declared:
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            unmet.append({"name": wanted.name, "wanted": str(wanted.specifier), "found": None})
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            unmet.append({"name": wanted.name, "wanted": str(wanted.specifier), "found": found})
    return unmet


def _tell(item: dict[str, Any]) -> None:
    print(json.dumps(item, default=str), flush=True)


if __name__ == "__main__":
    sys.exit(main())
