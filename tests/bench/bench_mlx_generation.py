"""GRPO's generation on MLX against mlx-lm's own batched generation: same model, prompts, sampling and lengths, in turn.

Both write exactly as many tokens for every prompt, so that the rates compare; a group's prompts are the same, as in training.
"""

from __future__ import annotations

import os
import statistics
import time

from engine.runs.blas import openblas

ROUNDS = 6
PROMPTS, GROUP, TOKENS = 8, 8, 48


def rates() -> tuple[list[float], list[float]]:
    """Tokens per second of the process's own time, ours and mlx-lm's, one pair a round; the first, which warms up, is
    left out."""
    import mlx.core as mx
    from mlx_lm.generate import BatchGenerator
    from mlx_lm.sample_utils import make_sampler

    from engine.backends import open_backend
    from engine.backends.interface import LoadSettings
    from engine.backends.mlx.generation import generate
    from engine.backends.tokens import encode_prompt
    from engine.models.lineage import Base, Lineage
    from recipes.resources import resolve_model

    folder = resolve_model("lab", os.getcwd())
    lineage = Lineage(Base(id="lab", path=str(folder), revision=None, files={}), None, [], [], None)
    policy = open_backend("mlx").load(
        lineage, folder, LoadSettings("none", "fp32", "lora", 8, 16.0, 0.0, "all-linear", False, 0, False)
    )
    asked = [f"Start with {n}. Add {n + 3}. Take {n} away. What is the result?" for n in range(3, 3 + PROMPTS)]
    rows = [encode_prompt(policy.tokenizer, [{"role": "user", "content": text}]) for text in asked]
    rows = [row for row in rows for _ in range(GROUP)]

    def ours(seed: int) -> int:
        with policy.weights("policy") as network:
            written = generate(network, rows, max_new_tokens=TOKENS, temperature=1.0, seed=seed, stops=set())
        return sum(map(len, written))

    def theirs(seed: int) -> int:
        mx.random.seed(seed)
        with policy.weights("policy") as network:
            generator = BatchGenerator(
                network.model,
                stop_tokens=[],
                sampler=make_sampler(temp=1.0),
                completion_batch_size=len(rows),
                prefill_batch_size=len(rows),
            )
            generator.insert(rows, [TOKENS] * len(rows))
            written = 0
            while found := generator.next_generated():
                written += len(found)
            generator.close()
        return written

    def rate(write: object, seed: int) -> float:
        began = time.process_time()
        written = write(seed)  # type: ignore[operator]
        took = time.process_time() - began
        assert written == TOKENS * len(rows), (written, TOKENS * len(rows))
        return written / took

    found: tuple[list[float], list[float]] = ([], [])
    for seed in range(ROUNDS + 1):
        for place in (0, 1) if seed % 2 else (1, 0):
            measured = rate((ours, theirs)[place], seed)
            if seed:
                found[place].append(measured)
    return found


def rows() -> list[str]:
    """In a process of its own, so that OpenBLAS can come before MLX's own BLAS."""
    import subprocess
    import sys

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    preload = openblas()
    if preload:
        environment["LD_PRELOAD"] = preload
    code = "from tests.bench.bench_mlx_generation import row; print(row())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return [done.stdout.splitlines()[-1]]


def row() -> str:
    ours, theirs = rates()
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return (
        f"| GRPO's generation on MLX against mlx-lm's batched one, {PROMPTS} x {GROUP} completions of {TOKENS} tokens | "
        f"{statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f}, n {len(ratios)}), "
        f"{statistics.median(ours):.0f} tokens a CPU second | ≥ 0.9 |"
    )


if __name__ == "__main__":
    print("\n".join(rows()))
