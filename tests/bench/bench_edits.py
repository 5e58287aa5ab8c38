"""What abliteration and steering cost over the plain work in them: CPU time of both sides, alternating in one run.

Extraction against the same batched forwards without hooks; a trial against its generations and KL forwards alone, with
the same edits acting; steered generation against unsteered, of the same number of tokens (end-of-turn is ignored).
"""

from __future__ import annotations

import os

os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false")

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from engine.backends import open_backend
from engine.backends.interface import LoadSettings
from engine.backends.pytorch.abliteration import Bench
from engine.backends.pytorch.directions import BATCH, _forward, prompt_means
from engine.backends.pytorch.vectors import VectorSet
from engine.backends.tokens import encode_prompt
from engine.evaluate.refusals import judged, refusal_rate
from engine.interventions.vectors import Vector
from engine.models.lineage import Base, Lineage
from recipes.resources import assets_folder, resolve_model

ROUNDS = 8
DATA = assets_folder() / "lab" / "data"
PARAMETERS = {"depth": 0.6, "position": -1, "form": "norm"} | {
    f"{part}.{name}": value
    for part in ("attention", "mlp")
    for name, value in {"weight": 1.0, "peak": 0.6, "width": 1.0}.items()
}


def prompts(name: str, n: int) -> list[list[dict[str, str]]]:
    lines = (DATA / name).read_text().splitlines()[:n]
    return [[{"role": "user", "content": json.loads(line)["prompt"]}] for line in lines]


def compared(ours: Callable[[], object], plain: Callable[[], object]) -> list[float]:
    """CPU time of ours over that of the plain side, one ratio a round, the first of the two changing."""
    ratios = []
    for turn in range(ROUNDS + 1):
        seconds = {}
        for side in ("ours", "plain") if turn % 2 else ("plain", "ours"):
            before = time.process_time()
            (ours if side == "ours" else plain)()
            seconds[side] = time.process_time() - before
        ratios.append(seconds["ours"] / seconds["plain"])
    return ratios[1:]  # the first warms up


def row(what: str, ratios: list[float], wanted: str) -> str:
    found = f"{statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f}, n {len(ratios)})"
    return f"| {what} | {found} | {wanted} |"


def rows() -> list[str]:
    torch.set_num_threads(1)
    folder = resolve_model("lab", Path("."))
    lineage = Lineage(Base(id="lab", path=str(folder), revision=None, files={}))
    settings = LoadSettings("none", "fp32", "none", 4, 8.0, 0.0, "all-linear", False, 0, False)
    policy = open_backend("pytorch").load(lineage, folder, settings)
    harmful, harmless = prompts("forbidden-extraction.jsonl", 240), prompts("harmless-extraction.jsonl", 240)

    def forwards() -> None:
        encoded = sorted((encode_prompt(policy.tokenizer, prompt) for prompt in harmful), key=len)
        with policy.weights("policy") as model:
            for start in range(0, len(encoded), BATCH):
                _forward(model, *policy._pad_left(encoded[start : start + BATCH]))

    table = [
        row(
            "extracting directions against plain forwards, time",
            compared(lambda: prompt_means(policy, harmful, 4), forwards),
            "≤ 1.11 (0.9 of the token rate)",
        )
    ]
    bench = Bench(policy)
    with tempfile.TemporaryDirectory() as scratch:
        bench.extract(harmful, harmless, 4, False, Path(scratch) / "directions.safetensors")
    asked, answered = prompts("forbidden-search.jsonl", 64), prompts("harmless-search.jsonl", 64)
    answers = policy.generate(answered, max_new_tokens=32, temperature=0.0, seed=0)

    def parts() -> list:
        policy.divergence(answered, answers, to="start")
        return policy.generate(asked, max_new_tokens=48, temperature=0.0, seed=0)

    def trial() -> None:
        bench.apply(PARAMETERS, 1.0)
        refusal_rate(judged(asked, parts(), None))

    bench.apply(PARAMETERS, 1.0)
    table.append(row("a trial against its generations and KL forwards", compared(trial, parts), "≤ 1.2"))

    policy.model.generation_config.eos_token_id = policy.model.config.vocab_size - 1  # never said: equal lengths
    direction = torch.nn.functional.normalize(torch.randn(policy.model.config.hidden_size), dim=0)

    def unsteered() -> None:
        policy.interventions.replace()
        policy.generate(asked, max_new_tokens=48, temperature=0.0, seed=0)

    def steered() -> None:
        policy.interventions.replace(VectorSet(policy.model, [Vector("any", 2, direction, 1.0)]))
        policy.generate(asked, max_new_tokens=48, temperature=0.0, seed=0)

    table.append(row("steered generation against unsteered, time per token", compared(steered, unsteered), "≤ 1.05"))
    return table
