"""The memory of a stage on MLX from formulas: ``engine.forecast.arithmetic`` for a lazy graph in unified memory."""

from __future__ import annotations

from dataclasses import replace

from engine.forecast.arithmetic import (
    BYTES,
    GENERATION_BATCH,
    PARTS,
    SLACK,
    Layer,
    Memory,
    generating,
    measuring,
    notes,
    trainable,
)  # fmt: skip
from engine.forecast.model import ModelFacts
from engine.forecast.settings import GROUPS, Settings

MLX_AHEAD = 10
"""Operations that MLX sends ahead of the one that runs, their memory taken (``MAX_ACTIVE_TASKS``, mlx/transforms.cpp)."""
MLX_LOGITS = 2**23
"""Logits of one piece (``engine.backends.mlx.logprobs.LOGITS_AT_ONCE``)."""
MLX_LIKELIHOOD, MLX_TEMPERED, MLX_GAUGE, MLX_PENALTY = (3, 14), (4, 13), (11, 22), (19, 19)
"""Tensors of a piece's size that live at once: of a single piece, and at most of many, since MLX begins with the next ones.
Of log-probabilities with their gradient, without and with a temperature, compiled; of a divergence without and with its
gradient. Counted by the peak of each function alone at a vocabulary of 4096, in 1 to 16 pieces; but the last, which alone
holds 25 to 30, in CPO's step (14 to 19 at three vocabularies)."""
MLX_KL_TOKENS, MLX_PENALTY_TOKENS = 256, 2048
"""Positions of those divergences (``engine.backends.mlx.preferences``, ``engine.backends.mlx.cpo``)."""
MLX_CACHE_STEP = 256
"""Tokens by which mlx-lm's caches grow (``mlx_lm.models.cache.KVCache.step``)."""


def mlx_memory(model: ModelFacts, settings: Settings) -> Memory:
    """MLX: weights quantized in groups of 64 with a 16-bit scale and bias, embeddings included; 16-bit adapters.

    Its graph is lazy: without checkpointing every layer keeps its tensors as in PyTorch, and its attention is not fused
    where gradients are taken, so the scores of a layer are kept too (softmax) and five of them live in its backward.
    """
    size = BYTES[settings.dtype]
    bits = {"none": 8 * size, "8bit": 8 + 2 * 16 / 64, "4bit": 4 + 2 * 16 / 64}[settings.quantization]
    weights = (model.parameters - model.small_parameters) * bits / 8 + model.small_parameters * size
    count = trainable(model, settings)
    adapter = count * 4 if settings.training == "lora" else 0
    trained = count * (4 if settings.training == "lora" else size)
    layer = Layer(model, settings)
    moments: dict[str, dict[str, float]] = {"generating": {}}
    sequences = settings.sequences * (1 if settings.trains else 0)
    tokens = sequences * settings.length
    resident: dict[str, float] = {
        "weights": weights,
        "adapter": adapter,
        "reference": {"copy": weights, "adapter": adapter}.get(settings.reference, 0.0),
        "optimizer": 2.0 * trained if settings.trains else 0.0,
    }
    if settings.trains:
        scores = sequences * model.heads * settings.length**2 * size
        stream = tokens * model.hidden * size
        saved = layer.saved + scores
        held = model.layers * stream + saved if settings.gradient_checkpointing else model.layers * saved
        at_work = max(layer.mlp_backward, layer.attention_backward + 4 * scores) + MLX_AHEAD * stream
        # The start's own forward beside the policy's, and both last hidden states.
        start = layer.mlp_backward + 2 * stream if settings.pairs else 0.0
        step = resident | {"gradients": float(trained) * (2 if settings.training == "full" else 1)}  # and clipped
        moments["loss"] = step | {"activations": held + start, "logits": _mlx_logits(model, settings, sequences)}
        moments["backward"] = step | {"activations": held + at_work + start}
    limit = replace(
        settings, batch_size=min(GENERATION_BATCH, settings.batch_size * settings.accumulation), accumulation=1
    )
    sampling = generating(model, limit if settings.method in GROUPS else settings, MLX_CACHE_STEP)
    moments["generating"] = (
        resident | {key: sampling[key] for key in ("kv_cache", "activations", "logits")} if sampling else {}
    )
    if not settings.trains:
        read = measuring(model, settings)
        moments["measuring"] = resident | {key: read[key] for key in ("activations", "logits")}
    moment = max(moments, key=lambda name: sum(moments[name].values()))
    parts = {name: moments[moment].get(name, 0.0) for name in PARTS}
    allocated = sum(parts.values())
    # MLX keeps freed buffers up to a limit: the same slack as a caching allocator without fragmentation.
    return Memory(allocated, allocated * SLACK, parts, moment, tuple(notes(model, settings)))


def _mlx_logits(model: ModelFacts, settings: Settings, sequences: int) -> float:
    """Bytes of logits at their peak: pieces of them, several tensors each."""

    def live(positions: float, counted: tuple[int, int]) -> float:
        one, most = counted
        piece = min(positions * model.vocabulary, max(MLX_LOGITS, model.vocabulary))
        pieces = max(1.0, positions * model.vocabulary / piece)
        return 4.0 * piece * min(one * pieces, most)

    scored = settings.length - 1
    if settings.method in GROUPS:
        scored = min(scored, settings.max_new_tokens)  # completions alone
    found = live(sequences * scored, MLX_TEMPERED if settings.method in GROUPS else MLX_LIKELIHOOD)
    if settings.method == "cpo":
        return max(found, live(min(sequences * scored, MLX_PENALTY_TOKENS), MLX_PENALTY))
    if settings.method == "dpo":
        return max(found, live(min(sequences * scored, MLX_KL_TOKENS), MLX_GAUGE))
    return found
