"""Trace training steps on fake tensors: ``python -P -m engine.backends.pytorch.trace [IDLE] [--quantized]``.

The model is built by transformers from its config, the adapter by PEFT, the head by TRL, the optimizer by torch; a
meter counts what they would request of the CUDA allocator. Nothing is downloaded and nothing is computed.

Standard input: a line of JSON for each trace, ``{"config": {…config.json…}, "settings": {…}, "compute_capability": 86}``;
the settings are those of ``engine.forecast.settings.Settings``. Standard output: a line for each, ``{"allocated_mib",
"reserved_mib", "loading_mib", "forward_mib", "backward_mib", "optimizer_mib", "requests", "layers_traced", "seconds"}``
or ``{"error"}``. It ends with its input, and after IDLE seconds without a line. Without ``--quantized`` bitsandbytes,
which takes long to import, is left out, and a quantized model cannot be traced.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch
from torch._subclasses import FakeTensorMode

from engine.backends.pytorch.meter import Meter
from engine.backends.pytorch.stand_ins import cuda_kernels
from engine.backends.pytorch.traced_model import Traced
from engine.backends.pytorch.traced_step import Step
from engine.backends.sparing import leave_out
from engine.forecast.allocator import MIB, CachingAllocator
from engine.forecast.recording import Irregular, Peaks, Recording, extended

ALIKE = ("llama", "mistral", "qwen2")
"""Architectures whose layers request the same, so that a few of them stand for all (tests/forecast/test_trace.py)."""
FEWEST = 3
"""Layers that are traced, and one more: the first, the last, and one between that is repeated."""


def main() -> int:
    words = sys.argv[1:]
    idle = next((float(word) for word in words if word != "--quantized"), None)
    if "--quantized" not in words:
        leave_out()
    out = os.dup(1)
    os.dup2(2, 1)  # what libraries print on the way must not mix with the answers
    lines = b""
    while select.select([0], [], [], idle)[0]:
        more = os.read(0, 1 << 16)
        if not more:
            break
        lines += more
        while b"\n" in lines:
            line, lines = lines.split(b"\n", 1)
            os.write(out, json.dumps(_told(json.loads(line))).encode() + b"\n")
    return 0


def _told(description: dict[str, Any]) -> dict[str, Any]:
    try:
        return trace(description["config"], description["settings"], description.get("compute_capability", 80))
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:500]}


def trace(
    config: dict[str, Any], settings: dict[str, Any], compute_capability: int, whole: bool = False
) -> dict[str, Any]:
    """Peak memory of a step of ``settings`` on the model of ``config`` (config.json's content). ``whole``: every layer
    is traced, also where they are alike."""
    began = time.perf_counter()
    warnings.filterwarnings("ignore")
    peaks, requests, traced = _peaks(config, settings, compute_capability, whole)
    return {
        "allocated_mib": peaks.allocated / MIB,
        "reserved_mib": peaks.reserved / MIB,
        **{f"{phase}_mib": peak / MIB for phase, peak in peaks.phases.items()},
        "requests": requests,
        "layers_traced": traced,
        "seconds": time.perf_counter() - began,
    }


def _peaks(
    config: dict[str, Any], settings: dict[str, Any], compute_capability: int, whole: bool
) -> tuple[Peaks, int, list[int]]:
    """Peaks, how many requests they are of, and how many layers were traced for that: of a model whose layers are all
    alike a few, prolonged; else the model as it is."""
    layers = 0 if whole else layers_alike(config)
    if layers > FEWEST + 2:
        counts = [FEWEST, FEWEST + 1]
        fewer, more = (_recorded(shortened(config, count), settings, compute_capability) for count in counts)
        with contextlib.suppress(Irregular):
            long = extended(fewer, more, layers - counts[1])
            return long.replay(CachingAllocator()), len(long.events), counts
    recording = _recorded(config, settings, compute_capability)
    return recording.replay(CachingAllocator()), len(recording.events), [config.get("num_hidden_layers", 0)]


def _recorded(config: dict[str, Any], settings: dict[str, Any], compute_capability: int) -> Recording:
    recording = Recording()
    ours = settings["loop"] == "stage"
    ordered = ours and settings["fixed_order"]
    cuda = cuda_kernels(compute_capability, fixed_order=ordered)
    with _collected(), FakeTensorMode(allow_non_fake_inputs=True), _fake_friendly(), cuda:
        traced = Traced(config, settings)
        meter = Meter(recording, compute_capability, fixed_order=ours)  # a stage sets it always
        with meter:
            traced.load(recording)
            recording.mark("loading")
            Step(traced).run(meter, recording)
            recording.close()
    return recording


@contextlib.contextmanager
def _collected() -> Iterator[None]:
    """The cyclic collector comes when it likes; here everything is freed where the last reference to it ends. What the
    trace before this one left is young; to look at all that the libraries made would take as long as a small trace."""
    gc.collect(1)
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def layers_alike(config: dict[str, Any]) -> int:
    """How many layers of one kind the model has; 0 where they may differ, or nobody has looked."""
    if config.get("model_type") not in ALIKE or "text_config" in config:
        return 0
    layers = config.get("num_hidden_layers")
    return layers if isinstance(layers, int) else 0


def shortened(config: dict[str, Any], layers: int) -> dict[str, Any]:
    """The same model with fewer layers; of kinds that alternate (Gemma's windows) each is there."""
    before = config["num_hidden_layers"]
    short = {**config, "num_hidden_layers": layers}
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and len(kinds) == before:
        rare = [kind for kind in dict.fromkeys(kinds) if kind != kinds[0]]
        short["layer_types"] = [*rare, *[kinds[0]] * (layers - len(rare))]
    return short


@contextlib.contextmanager
def _fake_friendly() -> Iterator[None]:
    """What does not work on fake tensors and does not matter to them: moving modules and initialising weights."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch.nn.Module, "to", lambda self, *args, **kwargs: self))
        for name in ("kaiming_uniform_", "normal_", "zeros_", "trunc_normal_", "uniform_"):
            stack.enter_context(mock.patch.object(torch.nn.init, name, lambda tensor, *args, **kwargs: tensor))
        yield


if __name__ == "__main__":
    sys.exit(main())
