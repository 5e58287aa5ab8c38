"""One training stage's memory on a real device, in a process of its own: ``python -m tests.gpu.measure`` < case > figures.

Random weights in the shape of a real model, the stage's own trainer, rows that fill the whole length (with ``"padded"``
every other fills half of it, and a mask goes along). The case is
``{"model", "method", "training", "quantization", "batch_size", "length", "gradient_checkpointing", …}``; with
``"fixed_order": false`` the steps sum as CUDA likes, in the order of the moment.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

LONG = "Tarn " * 9000
"""One token a word with the lab's tokenizer."""
TEMPLATE = 2
"""Tokens of the chat template around a prompt."""
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes")


def main() -> None:
    case = json.load(sys.stdin)
    with tempfile.TemporaryDirectory() as folder:
        found = measured(case, Path(folder))
    print(json.dumps(found))


def in_a_process(case: dict[str, Any]) -> dict[str, Any]:
    """The figures of a case, measured in a process of its own. Raises AssertionError with the process's last words."""
    command = [sys.executable, "-m", "tests.gpu.measure"]
    done = subprocess.run(command, input=json.dumps(case), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measured(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    import torch

    from engine.backends import open_backend
    from engine.backends.interface import LoadSettings
    from engine.models.lineage import Base, Lineage

    model = random_model(case["model"], folder / "model")
    cuda = torch.cuda.is_available()
    if cuda:
        torch.zeros(1, device="cuda")
        context = process_mib() - torch.cuda.memory_reserved() / 2**20
        torch.cuda.reset_peak_memory_stats()
    settings = LoadSettings(
        quantization=case["quantization"], dtype=case.get("dtype", "auto"), training=case["training"],
        rank=case.get("lora_rank", 16), alpha=32.0, dropout=0.0, targets="all-linear",
        gradient_checkpointing=case["gradient_checkpointing"], seed=0, attention=case.get("attention", "auto"), fixed_order=case.get("fixed_order", True), needs_reference=case["method"] in ("dpo", "cpo", "orpo", "grpo", "rlvr"),
    )  # fmt: skip
    lineage = Lineage(Base(id="random", path=str(model), revision=None, files={}), None, [], [], None)
    backend = open_backend("pytorch")
    policy = backend.load(lineage, folder, settings)
    link = Link(folder)
    backend.train(case["method"], policy, rows_of(case), stage_of(case), link)
    figures: dict[str, Any] = {
        "versions": {name: version(name) for name in PACKAGES}, "trained": digest(policy), "step_s": link.seconds(),
    }  # fmt: skip
    if cuda:
        torch.cuda.synchronize()
        major, minor = torch.cuda.get_device_capability()
        figures |= {
            "gpu": torch.cuda.get_device_name(), "compute_capability": 10 * major + minor,
            "total_mib": torch.cuda.get_device_properties(0).total_memory / 2**20,
            "measured_mib": {
                "peak_allocated_mib": torch.cuda.max_memory_allocated() / 2**20,
                "peak_reserved_mib": torch.cuda.max_memory_reserved() / 2**20,
                "cuda_context_mib": max(context, process_mib() - torch.cuda.memory_reserved() / 2**20),
            },
        }  # fmt: skip
        mib = figures["measured_mib"]
        mib["process_mib"] = mib["peak_reserved_mib"] + mib["cuda_context_mib"]
    return figures


def digest(policy: Any) -> str:
    """Of the bits of everything that was trained."""
    found = hashlib.sha256()
    for name, weight in sorted(policy.model.named_parameters()):
        if weight.requires_grad:
            found.update(name.encode() + weight.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()


def process_mib() -> float:
    """What the driver says that this process holds."""
    import pynvml

    pynvml.nvmlInit()
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            for process in pynvml.nvmlDeviceGetComputeRunningProcesses(handle):
                if process.pid == os.getpid() and process.usedGpuMemory:
                    return process.usedGpuMemory / 2**20
        import torch

        free, total = torch.cuda.mem_get_info()  # in a container the driver does not know our pid: the whole card's
        return (total - free) / 2**20
    finally:
        pynvml.nvmlShutdown()


def random_model(name: str, folder: Path) -> Path:
    """The catalogue's shape with random weights, beside the lab's tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from engine.forecast.model import find_model
    from recipes.resources import resolve_model

    lab = resolve_model("lab-nano", folder)
    assert lab is not None
    folder.mkdir(parents=True)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(lab / file, folder)
    config = {**find_model(name).config, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    for key in ("quantization_config", "auto_map"):
        config.pop(key, None)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    del model
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return folder


def stage_of(case: dict[str, Any]) -> Any:
    return SimpleNamespace(
        steps=case.get("steps", 3), batch_size=case["batch_size"], accumulation=case.get("accumulation", 1), learning_rate=1e-5,
        schedule="linear", warmup=0.0, weight_decay=0.0, max_grad_norm=1.0, optimizer=case.get("optimizer", "adamw"),
        gradient_checkpointing=case["gradient_checkpointing"], max_length=case["length"], beta=0.1, sft_weight=0.0,
        odds_weight=0.1, kl_coefficient=1.0, kl_target=0.03, group_size=case.get("group_size", 2),
        max_new_tokens=case.get("max_new_tokens", 64), temperature=1.0, kl_weight=0.0, clip=0.2, num_iterations=1,
        steps_per_generation=None, loss="dapo", anchors=SimpleNamespace(share=0.25), process_weight=0.5,
        outcome_weight=1.0, trust_region=SimpleNamespace(every=100, kl=9.0, retention=0.0, slower=0.5),
        data=SimpleNamespace(source="random"),
    )  # fmt: skip


def rows_of(case: dict[str, Any]) -> Any:
    user = {"role": "user", "content": "Hi"}
    half = "Tarn " * (case["length"] // 2)
    texts = [half if case.get("padded") and place % 2 else LONG for place in range(16)]
    talks = [[user, {"role": "assistant", "content": text}] for text in texts]
    pairs = [SimpleNamespace(prompt=[user], chosen=text, rejected=text + "!") for text in texts]
    if case["method"] == "sft":
        return talks
    if case["method"] == "cpo":
        return SimpleNamespace(pairs=pairs, anchors=talks[:8])
    if case["method"] in ("grpo", "rlvr"):
        words = case["length"] - case.get("max_new_tokens", 64) - TEMPLATE
        questions = [
            SimpleNamespace(prompt=[{"role": "user", "content": "Tarn " * words}], answer="1") for _ in range(16)
        ]
        return SimpleNamespace(questions=questions, verifier=Uneven())
    return pairs


class Uneven:
    """Every other completion is right, so that no group is silent."""

    def verify(self, prompts: Any, completions: Any, answers: Any) -> Any:
        from engine.verify.interface import Verdict

        return [Verdict(float(place % 2)) for place in range(len(completions))]

    def steps(self, prompts: Any, completions: Any, answers: Any) -> Any:
        return [[SimpleNamespace(end=1, accepted=place % 2 == 0, required=True)] for place in range(len(completions))]


class Link:
    """A TrainingLink that neither evaluates nor saves nor probes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._marks: list[float] = []

    def seconds(self) -> float | None:
        """The fastest step after the first two."""
        found = [after - before for before, after in itertools.pairwise(self._marks)][1:]
        return min(found) if found else None

    def folder(self) -> Path:
        return self._folder

    def resume_from(self) -> None:
        return None

    def step(self, step: int, total: int, values: Any) -> None:
        self._marks.append(time.perf_counter())

    def after_step(self, step: int, total: int) -> None:
        pass

    def wants_checkpoint(self, step: int, total: int) -> bool:
        return False

    def stop_requested(self) -> bool:
        return False

    def sample(self, *_: Any) -> None:
        pass

    def probe(self, step: int) -> Any:
        from engine.backends.interface import Probe

        return Probe(kl=0.0, retention=None, n=1)

    def probed(self, *_: Any) -> None:
        pass


if __name__ == "__main__":
    main()
