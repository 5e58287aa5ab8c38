"""Tier 2 from outside: run the trace in a process of its own, which can be cancelled, and remember what it found.

Nothing here imports a training library; ``engine.backends.pytorch.trace`` does, in the helper.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engine.forecast.model import ModelFacts
from engine.forecast.settings import GROUPS, Settings
from engine.runs.directory import home
from engine.runs.files import write_atomically

MODULE = "engine.backends.pytorch.trace"
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")
SOURCES = (
    "backends/pytorch/trace.py",
    "backends/pytorch/traced_model.py",
    "backends/pytorch/traced_step.py",
    "backends/pytorch/traced_optimizer.py",
    "backends/pytorch/meter.py",
    "backends/pytorch/stand_ins.py",
    "backends/pytorch/heads.py",
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


_running: set[subprocess.Popen[bytes]] = set()


def cancel_running() -> None:
    """End the helpers that this process started: whoever wanted their figures has gone."""
    for process in list(_running):
        process.kill()


class Trace:
    """One trace. ``result`` waits; ``cancel`` ends the helper. Found figures are kept by the content they follow from."""

    def __init__(self, model: ModelFacts, settings: Settings, compute_capability: int) -> None:
        self.description = {
            "config": model.config,
            "settings": _relevant(settings),
            "compute_capability": compute_capability,
        }
        self._kept = home() / "forecasts" / f"{self._key()}.json"
        self._process: subprocess.Popen[bytes] | None = None

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

    def start(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=environment, start_new_session=True,
        )  # fmt: skip
        _running.add(self._process)
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(self.description).encode())
            self._process.stdin.close()
        except BrokenPipeError:
            pass  # it ended at once; result() says so
        self._process.stdin = None

    def done(self) -> bool:
        return self.known() is not None or (self._process is not None and self._process.poll() is not None)

    def cancel(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def result(self, timeout: float = TIMEOUT) -> dict[str, Any]:
        """``{"allocated_mib", "reserved_mib", …}``, or ``{"error"}`` when this architecture cannot be traced."""
        found = self.known()
        if found is not None:
            return found
        if self._process is None:
            self.start()
        assert self._process is not None
        try:
            answer, _ = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.cancel()
            return {"error": f"not done after {timeout:.0f} s"}
        except BaseException:
            self.cancel()
            raise
        finally:
            _running.discard(self._process)
        try:
            found = json.loads(answer)
        except ValueError:
            return {"error": f"the helper ended with exit code {self._process.returncode}"}
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
