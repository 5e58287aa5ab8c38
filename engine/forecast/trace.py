"""Tier 2 from outside: let the helper trace, which can be cancelled, and remember what it found.

Nothing here imports a training library; ``engine.backends.pytorch.trace`` does, in the helper.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engine.forecast.model import ModelFacts
from engine.forecast.settings import GROUPS, Settings
from engine.forecast.tracer import TRACER, Ended, TimedOut
from engine.runs.directory import home
from engine.runs.files import write_atomically

PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")
SOURCES = (
    "backends/pytorch/trace.py",
    "backends/pytorch/traced_model.py",
    "backends/pytorch/traced_step.py",
    "backends/pytorch/traced_optimizer.py",
    "backends/pytorch/meter.py",
    "backends/pytorch/stand_ins.py",
    "backends/pytorch/heads.py",
    "backends/pytorch/end_to_end.py",
    "backends/pytorch/divergence.py",
    "forecast/allocator.py",
    "forecast/recording.py",
)
TIMEOUT = 120.0


def can_trace() -> bool:
    """Whether the training libraries are here; asked without importing them."""
    return all(importlib.util.find_spec(name) is not None for name in ("torch", "transformers", "peft", "trl"))


def traceable(settings: Settings) -> bool:
    """The trace knows training steps in PyTorch; measuring and generating stay with the arithmetic."""
    return settings.backend == "pytorch" and settings.trains


def cancel_running() -> None:
    """End the helper of this process: whoever wanted its figures has gone."""
    TRACER.let_go()


class Trace:
    """One trace. ``result`` waits for it. Found figures are kept by the content they follow from."""

    def __init__(self, model: ModelFacts, settings: Settings, compute_capability: int) -> None:
        self.description = {
            "config": model.config,
            "settings": _relevant(settings),
            "compute_capability": compute_capability,
        }
        self._kept = home() / "forecasts" / f"{self._key()}.json"

    def _key(self) -> str:
        content = json.dumps([self.description, _versions()], sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()[:32]

    def known(self) -> dict[str, Any] | None:
        """The figures, if an earlier trace of the same content left them."""
        try:
            found = json.loads(self._kept.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and "allocated_mib" in found else None

    def result(self, timeout: float = TIMEOUT) -> dict[str, Any]:
        """``{"allocated_mib", "reserved_mib", …}``, or ``{"error"}`` when this architecture cannot be traced."""
        found = self.known()
        if found is not None:
            return found
        try:
            found = TRACER.ask(self.description, timeout)
        except TimedOut:
            return {"error": f"not done after {timeout:.0f} s"}
        except Ended as error:
            return {"error": str(error)}
        if "allocated_mib" in found:
            self.keep(found)
        return found

    def keep(self, found: dict[str, Any]) -> None:
        """Remember figures for whoever asks for the same content."""
        self._kept.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self._kept, json.dumps(found))


def _relevant(settings: Settings) -> dict[str, Any]:
    """What the step depends on, so that a change of anything else finds the kept figures."""
    kept = settings.to_json()
    for name in ("steps", "evaluation_prompts", "evaluation_tokens", "checkpoint_keep", "gpus", "backend"):
        del kept[name]
    for name in ("group_size", "prompt_length", *(() if settings.method in GROUPS else ("max_new_tokens",))):
        del kept[name]
    if settings.method != "cpo":
        del kept["anchor_share"]
    kept["accumulation"] = min(2, settings.accumulation)
    if settings.method in GROUPS:
        kept["method"] = "grpo"
    elif settings.method == "anti_hallucination":
        kept["method"] = "sft"
    if settings.lora_targets == "attention":
        kept["lora_targets"] = ["q_proj", "k_proj", "v_proj", "o_proj"]
    return kept


@cache
def _versions() -> dict[str, str]:
    """What the figures depend on beside the description: the libraries and our own code."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    engine = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256(b"".join((engine / source).read_bytes() for source in SOURCES))
    return {**found, "code": digest.hexdigest()}
